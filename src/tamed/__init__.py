"""Tamed turns a Python network program into a well-behaved daemon.

This package exports the public names for programs; each is imported on first use.
"""

from tamed._version import __version__

TYPE_CHECKING = False  # importing it would load `typing`
if TYPE_CHECKING:
    from tamed.net.client import ClientService
    from tamed.net.datagram import DatagramServer
    from tamed.net.endpoint import Endpoint
    from tamed.net.reply import ReplyServer
    from tamed.net.stream import ProtocolServer, StreamServer
    from tamed.plugins.option import option
    from tamed.plugins.plugin import plugin
    from tamed.plugins.values import Duration, Size
    from tamed.service.application import Application
    from tamed.service.events import events
    from tamed.service.lifecycle import State
    from tamed.service.restart import Backoff, Restart
    from tamed.service.service import MultiService, Only, Service
    from tamed.service.timer import TimerService

__all__ = [
    "Application",
    "Backoff",
    "ClientService",
    "DatagramServer",
    "Duration",
    "Endpoint",
    "MultiService",
    "Only",
    "ProtocolServer",
    "ReplyServer",
    "Restart",
    "Service",
    "Size",
    "State",
    "StreamServer",
    "TimerService",
    "__version__",
    "events",
    "option",
    "plugin",
]

if not TYPE_CHECKING:
    _MODULES = {
        "Application": ".service.application",
        "Backoff": ".service.restart",
        "ClientService": ".net.client",
        "DatagramServer": ".net.datagram",
        "Duration": ".plugins.values",
        "Endpoint": ".net.endpoint",
        "MultiService": ".service.service",
        "Only": ".service.service",
        "ProtocolServer": ".net.stream",
        "ReplyServer": ".net.reply",
        "Restart": ".service.restart",
        "Service": ".service.service",
        "Size": ".plugins.values",
        "State": ".service.lifecycle",
        "StreamServer": ".net.stream",
        "TimerService": ".service.timer",
        "events": ".service.events",
        "option": ".plugins.option",
        "plugin": ".plugins.plugin",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
        return value


def __dir__() -> list[str]:
    return __all__
