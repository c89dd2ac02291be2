"""The types of ASGI 3 (https://asgi.readthedocs.io): the arguments of an application."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["ASGIApplication", "ClientLeft", "Message", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
"""The description of a request or a connection for the application."""

Message = MutableMapping[str, Any]
"""An event, in either direction."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientLeft(OSError):
    """The client has disconnected: nothing more can be read from it or sent to it."""
