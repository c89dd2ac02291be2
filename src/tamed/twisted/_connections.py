"""The reactor's open ports and connections: a port waits for its service, and a stop for the connections."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from twisted.python import log as twisted_log

from tamed._os.text import counted
from tamed.log.logger import own_logger
from tamed.net.endpoint import address_text

__all__ = ["Connections"]

log = own_logger("tamed.twisted")

_NAMED = 10
"""Maximum number of peers in a log line."""


class _Port(Protocol):
    addresses: tuple[str, ...]

    def start_accepting(self) -> None: ...

    def stopListening(self) -> Any: ...  # noqa: N802


class _Transport(Protocol):
    protocol: Any

    def getPeer(self) -> Any: ...  # noqa: N802

    def abortConnection(self) -> None: ...  # noqa: N802


class Connections:
    """The reactor's ports and its open connections, for which a stop can wait.

    ``accepted`` is the number of all connections so far. ``reporter`` is the one service on this reactor that
    reports the figures, so that none is counted twice.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.reporter: object = None
        self._owner: object = None
        self._is_accepting = False
        self._ports: dict[_Port, object] = {}
        self._open: dict[_Transport, None] = {}
        self._idle: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __str__(self) -> str:
        """Return how many are open, with the first of their peers, for the log."""
        peers = ", ".join(_peer(transport) for transport in islice(self._open, _NAMED))
        more = ", ..." if len(self._open) > _NAMED else ""
        return f"{counted(len(self._open), 'connection')} ({peers}{more})"

    @property
    def ports(self) -> tuple[_Port, ...]:
        """The ports that are open, in the order in which they were opened."""
        return tuple(self._ports)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for port in self._ports for address in port.addresses)

    @contextmanager
    def owned_by(self, owner: object) -> Iterator[None]:
        """Make ports that are opened inside the ``with`` belong to a service.

        They accept no connection until `start_accepting` is called for it. A port that is opened before the
        reactor runs belongs to the service that starts first.
        """
        self._owner = owner
        try:
            yield
        finally:
            self._owner = None

    def ports_of(self, owner: object) -> tuple[_Port, ...]:
        """Return the ports that belong to a service, or to none."""
        return tuple(port for port, its_owner in self._ports.items() if its_owner is owner)

    def start_accepting(self, owner: object) -> None:
        """Accept connections by the ports of a service, which is ready, and by those that belong to none."""
        self._is_accepting = True
        for port in (*self.ports_of(None), *self.ports_of(owner)):
            port.start_accepting()

    def stop_accepting(self) -> None:
        """Assign ports that are opened from now on to the service that starts next."""
        self._is_accepting = False

    def notify_draining(self) -> None:
        """Notify open connections of a stop: call the method ``connection_draining()`` of their protocols.

        Protocols of a `ProtocolServer` may have this method; others have none.
        """
        for transport in tuple(self._open):
            protocol = transport.protocol
            while (inner := getattr(protocol, "wrappedProtocol", None)) is not None:  # in TLS, for example
                protocol = inner
            notify = getattr(protocol, "connection_draining", None)
            if notify is not None:
                try:
                    notify()
                except Exception:
                    twisted_log.err(None, f"connection_draining of {_peer(transport)} failed")

    def add_port(self, port: _Port) -> None:
        """Add a port, which accepts connections at once if it belongs to no service that is not ready."""
        self._ports[port] = self._owner
        if self._owner is None and self._is_accepting:
            port.start_accepting()

    def remove_port(self, port: _Port) -> None:
        self._ports.pop(port, None)

    def add(self, transport: _Transport) -> None:
        self.accepted += 1
        self._open[transport] = None

    def remove(self, transport: _Transport) -> None:
        self._open.pop(transport, None)
        if not self._open and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def all_closed(self) -> None:
        if self._open:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def abort(self) -> None:
        for transport in tuple(self._open):
            try:
                transport.abortConnection()
            except Exception:
                log.exception("cannot abort the connection of %s", _peer(transport))

    def forget(self) -> None:
        """Count connections that do not close as closed, so that no stop waits for them."""
        self._open.clear()


def _peer(transport: _Transport) -> str:
    peer = transport.getPeer()
    host = getattr(peer, "host", None)
    return address_text((host, peer.port)) if host else "unix"
