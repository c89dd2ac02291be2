"""The private names of Twisted that the bridge relies on, each behind a function of its own.

Nothing else in this folder uses one. Twisted may change a private name in any release: a test looks for
each of those below, and pyproject.toml has an upper bound for Twisted.
"""

import asyncio
import socket
from typing import Any

from twisted.logger import globalLogBeginner
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]  # not in its `__all__`

__all__ = [
    "ServerOptions",
    "event_loop",
    "forget_triggers",
    "has_begun_logging",
    "set_event_loop",
    "use_socket",
]


def event_loop(reactor: Any) -> asyncio.AbstractEventLoop:
    """Return the event loop of a reactor for asyncio, which need not be running."""
    loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
    return loop


def set_event_loop(reactor: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Make a reactor for asyncio use another loop; readers and writers stay registered with the old one."""
    reactor._asyncioEventloop = loop


def forget_triggers(reactor: Any, event: str) -> None:
    """Drop an event with its triggers, even while it waits for one of them.

    ``removeSystemEventTrigger`` is not enough: the event would continue after the pending trigger, and fire
    triggers that were added for the next time.
    """
    reactor._eventTriggers.pop(event, None)


def use_socket(port: Any, sock: socket.socket) -> None:
    """Make a port use an existing socket, and close it without a shutdown: other processes may share it.

    ``adoptStreamPort`` and its like do this for ports of Twisted's own classes.
    """
    port._preexistingSocket = sock
    port._shouldShutdown = False


def has_begun_logging() -> bool:
    """Return whether ``beginLoggingTo`` was called: it warns at the second call."""
    return globalLogBeginner._temporaryObserver is None
