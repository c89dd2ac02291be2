"""A tree of our services: ``tree_tamed.py COUNT hooks|bare`` builds, starts and stops it."""

import asyncio
import json
import sys
import time

from tamed.service.application import Application
from tamed.service.service import Service


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
    await application.lifecycle.bring_up()
    times.append(clock())
    await application.lifecycle.take_down()
    times.append(clock())
    return times


kind = Hooked if sys.argv[2] == "hooks" else Service
print(json.dumps(asyncio.run(main(int(sys.argv[1]), kind))))
