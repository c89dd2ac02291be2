"""A tree of Twisted's services: ``tree_twisted.py COUNT hooks|bare`` builds, starts and stops it."""

import json
import sys
import time

from twisted.application.service import MultiService, Service


class Hooked(Service):
    """Calls up in its hooks, as it must."""

    def startService(self):
        Service.startService(self)

    def stopService(self):
        Service.stopService(self)


def main(count, kind):
    """Return the moments, in seconds of CPU, before and after each step."""
    clock = time.process_time
    times = [clock()]
    application = MultiService()
    for number in range(count):
        service = kind()
        service.setName(f"s{number}")
        service.setServiceParent(application)
    times.append(clock())
    application.privilegedStartService()
    application.startService()
    times.append(clock())
    application.stopService()
    times.append(clock())
    return times


kind = Hooked if sys.argv[2] == "hooks" else Service
print(json.dumps(main(int(sys.argv[1]), kind)))
