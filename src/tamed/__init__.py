"""Tamed turns a Python network program into a well-behaved daemon.

What programs need is here by name, whichever layer it is in.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face
from tamed._version import __version__

if TYPE_CHECKING:
    from tamed.net import (
        ClientService,
        DatagramServer,
        Endpoint,
        ProtocolServer,
        ReplyServer,
        StreamServer,
    )
    from tamed.plugins.option import option
    from tamed.plugins.plugin import plugin
    from tamed.plugins.values import Duration, Size
    from tamed.service.application import Application
    from tamed.service.lifecycle import State
    from tamed.service.restart import Backoff, Restart
    from tamed.service.service import MultiService, Service
    from tamed.service.timer import TimerService

__all__ = [
    "Application",
    "Backoff",
    "ClientService",
    "DatagramServer",
    "Duration",
    "Endpoint",
    "MultiService",
    "ProtocolServer",
    "ReplyServer",
    "Restart",
    "Service",
    "Size",
    "State",
    "StreamServer",
    "TimerService",
    "__version__",
    "option",
    "plugin",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "Application": ".service.application",
            "Backoff": ".service.restart",
            "ClientService": ".net",
            "DatagramServer": ".net",
            "Duration": ".plugins.values",
            "Endpoint": ".net",
            "MultiService": ".service.service",
            "ProtocolServer": ".net",
            "ReplyServer": ".net",
            "Restart": ".service.restart",
            "Service": ".service.service",
            "Size": ".plugins.values",
            "State": ".service.lifecycle",
            "StreamServer": ".net",
            "TimerService": ".service.timer",
            "option": ".plugins.option",
            "plugin": ".plugins.plugin",
        },
    )


def __dir__() -> list[str]:
    return __all__
