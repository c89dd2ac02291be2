"""Undocumented names and texts of asyncio, uvloop and the socket module that this package uses.

tests/net/test_compat.py checks each of them, so that it fails for a release without one.
"""

import asyncio
import re
import socket
import traceback
from collections.abc import Callable
from typing import Any, Final

__all__ = [
    "LOOPS",
    "WARNINGS_OF_WRITES",
    "Accept",
    "accept_of",
    "is_error_of_closed_connection",
    "retrieve_close_error",
]

Accept = Callable[[], tuple[int, Any]]
"""Returns the descriptor of a new connection and its peer's address; raises OSError like accept(2)."""

WARNINGS_OF_WRITES: Final = frozenset({"socket.send() raised exception.", "SSL connection is closed"})
"""The warnings of asyncio when data is written to a closed connection."""

LOOPS: Final = ("asyncio.selector_events", "asyncio.sslproto", "uvloop.loop")
"""The modules of the event loops that raise errors because a connection is closed."""

_CLOSED: Final = r"the handler is closed$|^'NoneType' object has no attribute "
"""The texts of these errors: those of uvloop, and those that asyncio's code causes."""


def accept_of(sock: socket.socket) -> Accept:
    """Return the function that accepts a connection as a descriptor.

    `socket.socket.accept` creates a socket object of its own class, and to convert that into another class
    costs a system call, getsockname(2). It has called this function since Python 3.0, and gevent and eventlet
    use that too.
    """
    accept: Accept = sock._accept  # type: ignore[attr-defined]
    return accept


def is_error_of_closed_connection(error: BaseException | None) -> bool:
    """Return whether an event loop has raised this error because a connection was closed."""
    if not (isinstance(error, RuntimeError | AttributeError) and re.search(_CLOSED, str(error))):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__") in LOOPS


def retrieve_close_error(protocol: asyncio.StreamReaderProtocol) -> None:
    """Retrieve the error that ended a connection, for a handler that does not call `wait_closed`.

    Otherwise asyncio logs "exception was never retrieved", depending on the order in which the garbage
    collector frees the protocol and the future.
    """
    closed: asyncio.Future[None] = protocol._get_close_waiter(None)  # type: ignore[attr-defined]
    if not closed.cancelled():
        closed.exception()
