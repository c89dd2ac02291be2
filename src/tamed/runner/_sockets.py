"""The listening sockets of a supervised application: bound once, by the supervisor, for every worker."""

import socket
from dataclasses import dataclass, field

from tamed.errors import Unavailable
from tamed.net import (
    Bound,
    Endpoint,
    FdEndpoint,
    Inheritance,
    SystemdEndpoint,
    UnixEndpoint,
    address_text,
    bind,
)

__all__ = ["SocketTable"]

_Key = tuple[str, int, int]


@dataclass(slots=True)
class SocketTable:
    """Binds an endpoint when a worker first asks for it, and has the same sockets for all who ask later.

    They stay bound until the table is closed, so that no connection finds the door shut while workers come
    and go. ``is_closed`` says that it is.
    """

    inheritance: Inheritance
    is_closed: bool = False
    _bound: dict[_Key, Bound] = field(default_factory=dict)

    def get(self, text: str, kind: int, index: int) -> tuple[socket.socket, ...]:
        """Return the sockets of an endpoint.

        ``index`` counts the servers of one application that ask for the same text. That is how each of
        several servers on ``localhost:0`` has a port of its own, and the same one in every worker. Raises the
        TamedError that says why it cannot be bound, and ValueError for a text that is no endpoint.
        """
        if self.is_closed:
            raise Unavailable(f"cannot listen on {text}", "the daemon stops")
        key = (text, kind, index)
        if key not in self._bound:
            self._bound[key] = self._bind(Endpoint.parse(text), socket.SocketKind(kind))
        return self._bound[key].sockets

    def addresses(self) -> list[str]:
        """Return where all of them are bound, as one would type it."""
        return [
            f"unix:{endpoint.path}"
            if isinstance(endpoint, UnixEndpoint)
            else address_text(sock.getsockname())
            for (text, _, _), bound in self._bound.items()
            for endpoint in [Endpoint.parse(text)]
            for sock in bound.sockets
        ]

    def close(self) -> None:
        """Close all sockets and remove the files of those that have one. May be called again."""
        self.is_closed = True
        while self._bound:
            self._bound.popitem()[1].close()

    def _bind(self, endpoint: Endpoint, kind: socket.SocketKind) -> Bound:
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return Bound(self.inheritance.sockets(endpoint, kind))
        return bind(endpoint, kind)
