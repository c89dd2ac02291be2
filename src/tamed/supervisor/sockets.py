"""The listening sockets of a supervised application: the supervisor binds each once, for every worker."""

import contextlib
import os
import socket
import sys
from typing import NamedTuple

from tamed._os.descriptors import drop_new_connections
from tamed._os.identity import Identity
from tamed._os.unix_sockets import SocketFile
from tamed.errors import PermissionRefused, TamedError, Unavailable
from tamed.ipc.handoff import Data, Keep
from tamed.net.bind import Bound, bind
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
from tamed.supervisor.kept_sockets import KeptSockets, SocketKey
from tamed.unix.notify import Notifier

__all__ = ["SocketTable"]

_INHERITED = ("fd://", "systemd://")
_UNACKED = slice(24, 28)  # bytes of `tcp_info`, before those of `tcpi_sacked`


class _Held(NamedTuple):
    """Sockets, and the text of their endpoint in each generation that uses them."""

    key: SocketKey
    bound: Bound
    users: dict[int, str]

    @property
    def is_lost(self) -> bool:
        """Whether clients can no longer connect, because the socket's file was removed or replaced."""
        return self.bound.file is not None and self.bound.file.is_lost

    @property
    def is_inherited(self) -> bool:
        """Whether the process that passed the sockets keeps listening on them."""
        return self.key.place.startswith(_INHERITED)


class SocketTable:
    """Binds an endpoint at the first request of a worker, and returns the same sockets to later requests.

    The sockets stay bound as long as a generation of workers uses them, so that no connection is refused
    while workers start and end. For a generation that requests a unix socket whose file is gone, it is bound
    again; earlier generations keep their socket, and the clients in its queue. ``is_closed`` is true after
    `close`. While this process is root, it binds a unix socket as the user ``identity`` where that user can:
    root must not create files in another user's folder. Sockets in ``kept``, which an earlier start left
    with the service manager, are used again.
    """

    def __init__(
        self,
        inheritance: Inheritance,
        identity: Identity | None = None,
        kept: KeptSockets | None = None,
    ) -> None:
        self.is_closed = False
        self._kept = KeptSockets(Notifier("")) if kept is None else kept
        self._identity = identity
        self._inheritance = inheritance
        self._held: list[_Held] = []

    def get(self, text: str, kind: int, index: int, generation: int) -> tuple[socket.socket, ...]:
        """Return the sockets of an endpoint, which this generation uses from now on.

        ``index`` counts the servers of one application that request the same text. So each of several servers
        on ``localhost:0`` has its own port, and the same one in every worker. The parts of an endpoint that
        are not its address, such as a certificate, may differ between generations. Raises a TamedError with
        the reason if the endpoint cannot be bound, and ValueError for an invalid text.
        """
        if self.is_closed:
            raise Unavailable(f"cannot listen on {text}", "the daemon is stopping")
        endpoint = Endpoint.parse(text)
        key = SocketKey(_place(endpoint), kind, index)
        held = self._find(key, generation)
        if held is None or held.users.get(generation, text) != text:  # two equal ones cannot both be bound
            held = _Held(key, self._bind(endpoint, key), {})
            self._held.append(held)
        held.users[generation] = text
        return held.bound.sockets

    def _find(self, key: SocketKey, generation: int) -> _Held | None:
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
                self._kept.release(held.key, held.bound)
                held.bound.close()

    def keep(self, generation: int) -> str:
        """Leave copies of a generation's sockets with the service manager, and remove all others.

        Return why some are not kept, or an empty text.
        """
        self._kept.discard_rest()
        own = [held for held in self._held if generation in held.users and not held.is_inherited]
        kept = [self._kept.keep(held.key, held.bound) for held in own]
        return "" if all(kept) else self._kept.trouble

    @property
    def inherited(self) -> set[int]:
        """The inherited descriptors on which a server listens (``fd://``)."""
        return {
            endpoint.fd
            for held in self._held
            if isinstance(endpoint := Endpoint.parse(held.key.place), FdEndpoint)
        }

    def lost(self, generation: int) -> list[str]:
        """Return the unix sockets of a generation whose file is missing, so that clients cannot connect."""
        return [held.key.place for held in self._held if generation in held.users and held.is_lost]

    def addresses(self, generation: int) -> list[str]:
        """Return the addresses of a generation's sockets, in the form that a user types."""
        return [address for address, _ in self._addressed(generation)]

    def queues(self, generation: int) -> dict[str, tuple[int, int]]:
        """Return the length and the limit of the accept queue of each TCP address of a generation."""
        found = ((address, _queue_of(sock)) for address, sock in self._addressed(generation))
        return {address: queue for address, queue in found if queue is not None}

    def _addressed(self, generation: int) -> list[tuple[str, socket.socket]]:
        return [
            (
                f"unix:{endpoint.path}"
                if isinstance(endpoint, UnixEndpoint)
                else address_text(sock.getsockname()),
                sock,
            )
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
                "kept": self._kept.names(held.key, held.bound),
                "users": list(held.users.items()),
                "sockets": [keep(sock.fileno()) for sock in held.bound.sockets],
                "file": None if held.bound.file is None else vars(held.bound.file),
            }
            for held in self._held
        ]

    def resume(self, left: list[Data]) -> None:
        """Take over the sockets of the previous program."""
        for data in left:
            sockets = tuple(socket.socket(fileno=descriptor) for descriptor in data["sockets"])
            file = None if data["file"] is None else SocketFile(**data["file"])
            self._held.append(_Held(SocketKey(*data["key"]), Bound(sockets, file), dict(data["users"])))
            self._kept.resume(data["kept"])

    def close(self) -> None:
        """Close all sockets and remove their files. Idempotent.

        Workers that still listen on them accept the clients in the queue. New clients can connect only to
        sockets that another process has open: the one that passed them, or the service manager.
        """
        self.is_closed = True
        while self._held:
            held = self._held.pop()
            bound = held.bound
            if self._kept.has(held.key, bound):
                bound = bound._replace(file=None)
            elif not held.is_inherited:
                for sock in bound.sockets:
                    drop_new_connections(sock)
            bound.close()
        self._kept.close()

    def _bind(self, endpoint: Endpoint, key: SocketKey) -> Bound:
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return Bound(self._inheritance.sockets(endpoint, socket.SocketKind(key.kind)))
        try:
            bound = self._take_or_bind(endpoint, key)
        except TamedError:
            if not self._kept.make_way(endpoint, key.kind):
                raise
            bound = self._take_or_bind(endpoint, key)
        self._kept.claim(bound)
        return bound

    def _take_or_bind(self, endpoint: Endpoint, key: SocketKey) -> Bound:
        kind = socket.SocketKind(key.kind)
        if not isinstance(endpoint, UnixEndpoint):
            return bind(endpoint, kind, bound_before=lambda address: self._kept.take(key, address))
        if (bound := self._kept.take_unix(key, endpoint)) is not None:
            return bound
        if self._identity is not None and os.geteuid() == 0:
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


def _queue_of(sock: socket.socket) -> tuple[int, int] | None:
    """Return the length and the limit of a listening socket's accept queue; None if unknown.

    In ``struct tcp_info`` (linux/tcp.h) of a listening socket, ``tcpi_unacked`` and ``tcpi_sacked`` are these
    two, as ss(8) shows them.
    """
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.stop + 4)
    return int.from_bytes(info[_UNACKED], sys.byteorder), int.from_bytes(info[_UNACKED.stop :], sys.byteorder)
