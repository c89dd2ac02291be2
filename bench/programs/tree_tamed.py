"""A tree of our services: ``tree_tamed.py COUNT hooks|bare`` builds, starts and stops it."""

import asyncio
import json
import sys
import time

from tamed.service import Application, Service
from tamed.service.lifecycle import bring_up, take_down


class Hooked(Service):
    """Has hooks that do nothing."""

    async def start(self):
        pass

    async def stop(self):
        pass


async def main(count, kind):
    """Return the moments, in seconds of CPU, before and after each step."""
    clock = time.process_time
    times = [clock()]
    application = Application("bench")
    for number in range(count):
        application.add(kind(f"s{number}"))
    times.append(clock())
    await bring_up(application)
    times.append(clock())
    await take_down(application)
    times.append(clock())
    return times


kind = Hooked if sys.argv[2] == "hooks" else Service
print(json.dumps(asyncio.run(main(int(sys.argv[1]), kind))))
