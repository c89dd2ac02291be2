"""The listening sockets of a supervised application: the supervisor binds each once, for every worker."""

import contextlib
import os
import socket
from typing import NamedTuple

from tamed._os.identity import Identity
from tamed._os.unix_sockets import SocketFile
from tamed.errors import PermissionRefused, Unavailable
from tamed.ipc.handoff import Data, Keep
from tamed.net.bind import Bound, bind, drop_new_connections
from tamed.net.endpoint import (
    Endpoint,
    FdEndpoint,
    SystemdEndpoint,
    TcpEndpoint,
    TlsEndpoint,
    UnixEndpoint,
    address_text,
)
from tamed.net.inherit import Inheritance

__all__ = ["SocketTable"]

_Key = tuple[str, int, int]
_INHERITED = ("fd://", "systemd://")


class _Held(NamedTuple):
    """Sockets, and the text of their endpoint in each generation that uses them."""

    key: _Key
    bound: Bound
    users: dict[int, str]

    @property
    def is_lost(self) -> bool:
        """Whether clients cannot connect any more, because the socket's file is gone or was replaced."""
        return self.bound.file is not None and self.bound.file.is_lost


class SocketTable:
    """Binds an endpoint at the first request of a worker, and returns the same sockets to later requests.

    The sockets stay bound as long as a generation of workers uses them, so that no connection is refused
    while workers start and end. For a generation that requests a unix socket whose file is gone, it is bound
    again; earlier generations keep their socket, and the clients in its queue. ``is_closed`` is true after
    `close`. While this process is root, it binds a unix socket as the user ``identity``, wherever that user
    may: root must not create files in a folder of a user.
    """

    def __init__(self, inheritance: Inheritance, identity: Identity | None = None) -> None:
        self.is_closed = False
        self._identity = identity
        self._inheritance = inheritance
        self._held: list[_Held] = []

    def get(self, text: str, kind: int, index: int, generation: int) -> tuple[socket.socket, ...]:
        """Return the sockets of an endpoint, which this generation uses from now on.

        ``index`` counts the servers of one application that request the same text. So each of several servers
        on ``localhost:0`` has its own port, and the same one in every worker. The parts of an endpoint that
        are not its address, such as a certificate, may differ between generations. Raises a TamedError with
        the reason if the endpoint cannot be bound, and ValueError for a text that is no endpoint.
        """
        if self.is_closed:
            raise Unavailable(f"cannot listen on {text}", "the daemon stops")
        endpoint = Endpoint.parse(text)
        key = (_place(endpoint), kind, index)
        held = self._find(key, generation)
        if held is None or held.users.get(generation, text) != text:  # two of the same: it cannot be bound
            held = _Held(key, self._bind(endpoint, socket.SocketKind(kind)), {})
            self._held.append(held)
        held.users[generation] = text
        return held.bound.sockets

    def _find(self, key: _Key, generation: int) -> _Held | None:
        """Return the sockets that a generation has for a key, or may share with earlier generations."""
        found = [held for held in self._held if held.key == key]
        own = [held for held in found if generation in held.users]
        return next(iter(own or [held for held in found if not held.is_lost]), None)

    def release(self, generation: int) -> None:
        """Close the sockets that only this generation used; it has ended."""
        for held in self._held.copy():
            held.users.pop(generation, None)
            if not held.users:
                self._held.remove(held)
                held.bound.close()

    @property
    def inherited(self) -> set[int]:
        """The inherited descriptors on which a server listens (``fd://``)."""
        return {
            endpoint.fd
            for held in self._held
            if isinstance(endpoint := Endpoint.parse(held.key[0]), FdEndpoint)
        }

    def lost(self, generation: int) -> list[str]:
        """Return the unix sockets of a generation to which clients cannot connect: their file is gone."""
        return [held.key[0] for held in self._held if generation in held.users and held.is_lost]

    def addresses(self, generation: int) -> list[str]:
        """Return the addresses of a generation's sockets, in the form that a user types."""
        return [
            f"unix:{endpoint.path}"
            if isinstance(endpoint, UnixEndpoint)
            else address_text(sock.getsockname())
            for held in self._held
            if generation in held.users
            for endpoint in [Endpoint.parse(held.users[generation])]
            for sock in held.bound.sockets
        ]

    def export(self, keep: Keep) -> list[Data]:
        """Return this as data, for the next program."""
        return [
            {
                "key": held.key,
                "users": list(held.users.items()),
                "sockets": [keep(sock.fileno()) for sock in held.bound.sockets],
                "file": None if held.bound.file is None else held.bound.file._asdict(),
            }
            for held in self._held
        ]

    def resume(self, left: list[Data]) -> None:
        """Take over the sockets of the previous program."""
        for data in left:
            place, kind, index = data["key"]
            sockets = tuple(socket.socket(fileno=descriptor) for descriptor in data["sockets"])
            file = None if data["file"] is None else SocketFile(**data["file"])
            self._held.append(_Held((place, kind, index), Bound(sockets, file), dict(data["users"])))

    def close(self) -> None:
        """Close all sockets and remove their files. May be repeated.

        Workers that still listen on them accept the clients in the queue; no new clients can connect.
        """
        self.is_closed = True
        while self._held:
            held = self._held.pop()
            if not held.key[0].startswith(_INHERITED):  # the process that passed those goes on listening
                for sock in held.bound.sockets:
                    drop_new_connections(sock)
            held.bound.close()

    def _bind(self, endpoint: Endpoint, kind: socket.SocketKind) -> Bound:
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return Bound(self._inheritance.sockets(endpoint, kind))
        if isinstance(endpoint, UnixEndpoint) and self._identity is not None and os.geteuid() == 0:
            with contextlib.suppress(PermissionRefused), self._identity.acting():
                return bind(endpoint, kind)
        return bind(endpoint, kind)


def _place(endpoint: Endpoint) -> str:
    """Return the address part of an endpoint."""
    match endpoint:
        case TcpEndpoint() | TlsEndpoint():
            return f"{endpoint.host}:{endpoint.port}"
        case UnixEndpoint():
            return f"unix:{endpoint.path}"
        case _:
            return str(endpoint)
