"""What is used of asyncio, uvloop and the socket module beyond their documentation.

tests/net/test_compat.py looks for each of these names and texts, so that a release without one is noticed
there.
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
"""What asyncio warns of when something is written to a peer that has left."""

LOOPS: Final = ("asyncio.selector_events", "asyncio.sslproto", "uvloop.loop")
"""The modules in which the event loops raise errors because a connection is closed."""

_CLOSED: Final = re.compile(r"the handler is closed$|^'NoneType' object has no attribute ")
"""The texts of these errors: uvloop's, and what comes of asyncio's own code."""


def accept_of(sock: socket.socket) -> Accept:
    """Return the function that accepts a connection as a descriptor.

    `socket.socket.accept` makes a socket object of its own class of it, and an object of another class would
    have to be made from that: a system call, getsockname(2), each. It has been made of this function since
    Python 3.0, and gevent and eventlet use that too.
    """
    accept: Accept = sock._accept  # type: ignore[attr-defined]
    return accept


def is_error_of_closed_connection(error: BaseException | None) -> bool:
    """Tell whether an event loop has raised an error because a connection was closed."""
    if not (isinstance(error, RuntimeError | AttributeError) and _CLOSED.search(str(error))):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__") in LOOPS


def retrieve_close_error(protocol: asyncio.StreamReaderProtocol) -> None:
    """Retrieve the error that ended a connection, for a handler that does not wait until it is closed.

    Otherwise asyncio logs that nobody has, if the protocol and the future of `wait_closed` happen to be
    collected in the wrong order.
    """
    closed: asyncio.Future[None] = protocol._get_close_waiter(None)  # type: ignore[attr-defined]
    if not closed.cancelled():
        closed.exception()
