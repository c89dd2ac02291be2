"""The types of ASGI 3 (https://asgi.readthedocs.io): what an application is called with."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["ASGIApplication", "ClientLeft", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""A request or a connection, as the application gets it."""

Message = MutableMapping[str, Any]
"""An event, in either direction."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientLeft(OSError):
    """The client has left: nothing can be read from it or sent to it any more."""
