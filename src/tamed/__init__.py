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
    from tamed.plugins import Duration, Size, option, plugin
    from tamed.service import Application, Backoff, MultiService, Restart, Service, State, TimerService

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
            "Application": ".service",
            "Backoff": ".service",
            "ClientService": ".net",
            "DatagramServer": ".net",
            "Duration": ".plugins",
            "Endpoint": ".net",
            "MultiService": ".service",
            "ProtocolServer": ".net",
            "ReplyServer": ".net",
            "Restart": ".service",
            "Service": ".service",
            "Size": ".plugins",
            "State": ".service",
            "StreamServer": ".net",
            "TimerService": ".service",
            "option": ".plugins",
            "plugin": ".plugins",
        },
    )


def __dir__() -> list[str]:
    return __all__
