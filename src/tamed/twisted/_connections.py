"""What the reactor serves: its ports, and the connections that came by them."""

import asyncio
import logging
from itertools import islice
from typing import Any, Protocol

__all__ = ["Connections"]

log = logging.getLogger("tamed.twisted")

_NAMED = 10
"""How many peers a log line names."""


class _Transport(Protocol):
    def getPeer(self) -> Any: ...  # noqa: N802

    def abortConnection(self) -> None: ...  # noqa: N802


class _Port(Protocol):
    addresses: tuple[str, ...]

    def let_in(self) -> None: ...

    def stopListening(self) -> Any: ...  # noqa: N802


class Connections:
    """Keeps count of what is open, so that a stop can wait for it.

    ``accepted`` is the number of all connections so far. A port that is opened while there is an ``owner``
    belongs to that, and one that is opened before the reactor runs to whoever starts first; they let nobody
    in until `let_in` is called for them. ``teller`` is the service that tells how many there are: one of
    those on this reactor, lest they be counted twice.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.owner: object = None
        self.teller: object = None
        self.is_running = False
        self._open: dict[_Transport, None] = {}
        self._ports: dict[_Port, object] = {}
        self._idle: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def ports(self) -> tuple[_Port, ...]:
        """The ports that are open, in the order in which they were opened."""
        return tuple(self._ports)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the ports listen."""
        return tuple(address for port in self._ports for address in port.addresses)

    def ports_of(self, owner: object) -> tuple[_Port, ...]:
        """The ports that belong to somebody."""
        return tuple(port for port, its_owner in self._ports.items() if its_owner is owner)

    def opened(self, port: _Port) -> None:
        """Take note of a port, and have it let connections in if it belongs to nobody who is not ready."""
        self._ports[port] = self.owner
        if self.owner is None and self.is_running:
            port.let_in()

    def let_in(self, owner: object) -> None:
        """Let connections in by the ports of an owner, who is ready, and by those without one."""
        self.is_running = True
        for port in (*self.ports_of(None), *self.ports_of(owner)):
            port.let_in()

    def closed(self, port: _Port) -> None:
        """Take note that a port is closed."""
        self._ports.pop(port, None)

    def begin(self, transport: _Transport) -> None:
        """Take note of a connection."""
        self.accepted += 1
        self._open[transport] = None

    def end(self, transport: _Transport) -> None:
        """Take note that a connection is closed."""
        self._open.pop(transport, None)
        if not self._open and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        if self._open:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def peers(self) -> str:
        """Name the peers of the open connections, or the first of them."""
        named = ", ".join(_address(transport) for transport in islice(self._open, _NAMED))
        return f"{named}, ..." if len(self._open) > _NAMED else named

    def abort(self) -> None:
        """Cut every connection."""
        for transport in tuple(self._open):
            try:
                transport.abortConnection()
            except Exception:
                log.exception("cannot cut the connection of %s", _address(transport))

    def forget(self) -> None:
        """Count as closed what does not close, so that nobody waits for it."""
        self._open.clear()


def _address(transport: _Transport) -> str:
    peer = transport.getPeer()
    host = getattr(peer, "host", None)
    return f"{host}:{peer.port}" if host else "unix"
