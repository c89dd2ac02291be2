"""The base of all stream servers: accepting, counting, limits, and stopping without lost connections."""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net._connection import Connection, TlsConnection, TransportOpener, filter_disconnects
from tamed.net._handshakes import DEFAULT_MOST, DEFAULT_TIMEOUT, Handshakes
from tamed.net.accept import DEFAULT_BACKLOG, Acceptor, ListeningSocket, OnAccept, usable_backlog
from tamed.net.address_limit import AddressLimit
from tamed.net.listen import Endpoints, Gate, Listener, ListeningService, current_environment

if TYPE_CHECKING:
    from tamed.net.tls import CertificateWatch

__all__ = ["Server", "ServerOptions"]

log = own_logger("tamed.net")

_GRACE: Final = 5.0
"""Seconds in which aborted connections must end after the drain deadline."""

_QUEUED: Final = 4
"""The number of clients that may wait for a handshake, for each unfinished handshake that is allowed."""

_NAMED: Final = 10
"""The maximum number of peers in a log line."""


class ServerOptions(TypedDict, total=False):
    """The options of every stream server; see `Server`."""

    name: str | None
    max_connections: int | None
    max_connections_per_address: int | None
    backlog: int
    drain_timeout: float | None
    tls_handshake_timeout: float
    max_tls_handshakes: int
    alpn: Sequence[str]


class Server(ListeningService):
    """The base of the stream servers: it accepts connections, counts them, and stops without losing one.

    Clients can connect when ``start`` has returned. A final ``stop`` accepts the clients in the kernel's
    queue, closes the sockets (sockets that other processes share are left to them, with their queue), and
    waits until every connection has been served to its end. After ``drain_timeout`` seconds the remaining
    ones are aborted, with one warning that names them; ``stop_timeout`` is derived from that. A server that
    is stopped only to be started again keeps its sockets, and clients wait in the kernel's queue.

    Servers are used directly, not subclassed. These are the options of all of them:

    - ``name``: the name of the service;
    - ``max_connections``: with this many open, no more are accepted until one is closed (None: no limit);
    - ``max_connections_per_address``: more connections of an address are refused: they are closed as soon as
      they are accepted (None: no limit). The addresses of an IPv6 /64 network count as one, and unix sockets
      are not limited. Each process counts by itself;
    - ``backlog``: the number of clients that may wait to be accepted; the kernel may reduce it;
    - ``drain_timeout``: seconds for open connections to finish (None: the `ServerEnvironment`'s value);
    - ``tls_handshake_timeout``: seconds for the handshake of a client of a ``tls://`` endpoint;
    - ``max_tls_handshakes``: the number of unfinished handshakes, of clients that have sent their hello. At
      this number, an address (a /64 network of IPv6) that has more than ten of them loses its oldest to a
      client of another address. Otherwise clients wait for a place, four for each handshake as far as
      descriptors and ``max_connections`` allow, and addresses take turns. About as many clients may be
      connected without a hello. While a client waits for a place, or cannot be accepted because of a limit or
      a lack of descriptors, the oldest handshake is aborted that has no hello after half a second, or is not
      finished two seconds after its hello;
    - ``alpn``: the protocols that ``tls://`` endpoints offer in the handshake, the best first (RFC 7301).

    ``accepted`` is the number of all connections so far, and ``refused`` of those beyond the limit of their
    address, which ``accepted`` does not include. ``draining`` is set when ``stop`` begins: handlers of long
    connections may wait for it and end them at a good moment.
    """

    def __init__(self, endpoint: Endpoints, **options: Unpack[ServerOptions]) -> None:
        super().__init__(endpoint, name=options.get("name"))
        self.max_connections = options.get("max_connections")
        self.max_connections_per_address = options.get("max_connections_per_address")
        self.backlog = options.get("backlog", DEFAULT_BACKLOG)
        self.drain_timeout = options.get("drain_timeout")
        self.tls_handshake_timeout = options.get("tls_handshake_timeout", DEFAULT_TIMEOUT)
        self.max_tls_handshakes = options.get("max_tls_handshakes", DEFAULT_MOST)
        self.alpn = tuple(options.get("alpn", ()))
        self.accepted = 0
        self.draining = asyncio.Event()
        self._drain_seconds = 0.0
        # In the order of their begin. The values are the peers' addresses, if these are counted.
        self._open: dict[Connection, Any] = {}
        self._openers: list[TransportOpener] = []
        self._handshakes: Handshakes | None = None  # as long as there is an acceptor, for TLS
        self._acceptor: Acceptor | None = None
        self._gate = Gate()
        self._watches: list[CertificateWatch] = []
        self._idle: asyncio.Future[None] | None = None
        self._address_limit: AddressLimit | None = None
        for limit in ("max_connections", "max_connections_per_address", "max_tls_handshakes"):
            most = getattr(self, limit)
            if most is not None and most < 1:
                raise ValueError(f"{limit} must be at least 1, not {most}")
        if self.max_connections_per_address is not None:
            self._address_limit = AddressLimit(self.max_connections_per_address)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open)

    @property
    def refused(self) -> int:
        """The number of connections refused so far, because their address had too many open."""
        return 0 if self._address_limit is None else self._address_limit.refused

    async def start(self) -> None:
        """Listen, and accept clients."""
        filter_disconnects()
        self.draining = asyncio.Event()  # a new one, because it is bound to the event loop that waits for it
        environment = current_environment()
        self._drain_seconds = environment.drain_timeout if self.drain_timeout is None else self.drain_timeout
        self.stop_timeout = self._drain_seconds + 2 * _GRACE
        if self._address_limit is not None:
            self._address_limit.name = self.full_name
        backlog = usable_backlog(self.backlog)
        for listener in self.listeners:
            listener.listen(backlog)
            if listener.tls is not None and self.alpn:
                listener.tls.offer(self.alpn)
        self._openers.clear()
        if any(listener.tls is not None for listener in self.listeners):
            self._handshakes = Handshakes(
                self.full_name,
                self.max_tls_handshakes,
                self.tls_handshake_timeout,
                queue=self._handshake_queue(),
                changed=self._check_room,
                wanted=self._waits_for_room,
            )
        self._acceptor = Acceptor(self.full_name, self._listening_sockets(), short=self._make_room)
        self._gate = environment.gate
        self._gate.add(self._acceptor)
        self._acceptor.resume()
        if self._handshakes is not None:
            from tamed.net.tls import CertificateWatch  # lazy import: many servers have no TLS

            self._watches = [CertificateWatch(each.tls) for each in self.listeners if each.tls is not None]
        for address in self.addresses:
            log.info("listening on %s", address)

    async def stop(self) -> None:
        """Wait for the end of every connection, until the drain deadline."""
        self.draining.set()
        for watch in self._watches:
            watch.close()
        self._notify_draining()
        self._gate.opened.add(self._notify_draining)
        try:
            async with asyncio.timeout(self._drain_seconds):
                await self._stop_accepting()
                await self._all_served()
        except TimeoutError:
            left = ", ".join(self._left()) or "clients waiting to be accepted"
            text = "%s aborts connections that did not end within %g s: %s"
            log.warning(text, self.full_name, self._drain_seconds, left)
        finally:
            self._gate.opened.discard(self._notify_draining)
            self._close_listening_sockets()
            self._abort_all()
        await self._all_ended()

    def _on_accept_of(self, listener: Listener, sock: socket.socket) -> OnAccept:
        """Return the function that serves the connections of one listening socket."""
        raise NotImplementedError

    def _open_transports(
        self, listener: Listener, sock: socket.socket, make: Callable[[Connection, Any], asyncio.BaseProtocol]
    ) -> OnAccept:
        """Return a function that opens a transport for each connection, with TLS if the listener has it.

        ``make`` makes its protocol, from the connection and its peer's address.
        """
        family, kind, proto = sock.family, sock.type, sock.proto
        tls, handshakes = listener.tls, self._handshakes
        loop = asyncio.get_running_loop()
        open_accepted = loop.connect_accepted_socket
        opener = TransportOpener(self._not_opened)
        self._openers.append(opener)
        counted = self._limit_at(sock) is not None
        begin = self._begin if counted or self.max_connections is not None else self._open.setdefault
        end = self._end

        def on_accept(fd: int, address: Any) -> None:
            self.accepted += 1
            connection = Connection(family, kind, proto, fd, end)
            begin(connection, address if counted else None)
            opener.begin(connection, open_accepted(partial(make, connection, address), connection))

        if tls is None or handshakes is None:
            return on_accept

        def on_accept_tls(fd: int, address: Any) -> None:
            self.accepted += 1
            connection = TlsConnection(family, kind, proto, fd, end)
            connection.address = address
            begin(connection, address if counted else None)
            factory = partial(make, connection, address)
            opener.begin(connection, handshakes.open(connection, factory, tls.context))

        return on_accept_tls

    def _not_opened(self, connection: Connection, error: BaseException) -> None:
        if isinstance(error, OSError):  # caused by the peer: usually a TLS handshake that failed
            log.info("%s lost %s before it began: %s", self.full_name, connection.peer, reason(error))
        else:
            log.error("%s cannot serve %s", self.full_name, connection.peer, exc_info=error)

    def _limit_at(self, sock: socket.socket) -> AddressLimit | None:
        """Return the address limit of a listening socket, or None."""
        return None if sock.family == socket.AF_UNIX else self._address_limit

    def _begin(self, connection: Connection, address: Any) -> None:
        """Count an open connection; ``address`` is None if addresses are not limited."""
        self._open[connection] = address
        if address is not None and self._address_limit is not None:
            self._address_limit.enter(address)
        self._check_room()

    def _end(self, connection: Connection) -> None:
        """Record that a connection was closed: the ``on_closed`` of every `Connection`."""
        address = self._open.pop(connection, None)
        if address is not None and self._address_limit is not None:
            self._address_limit.leave(address)
        self._check_room()
        if self._idle is not None:
            self._check_done()

    def _check_room(self) -> None:
        """Pause accepting when a limit is reached, and resume when there is room."""
        if self._acceptor is None:
            return
        full = self.max_connections is not None and len(self._open) >= self.max_connections
        if full or (self._handshakes is not None and self._handshakes.full):
            self._acceptor.pause()
            self._make_room()
        elif self._acceptor.paused:
            if self._handshakes is not None:
                self._handshakes.end_making_room()
            self._acceptor.resume()

    def _handshake_queue(self) -> int:
        """Return the number of clients that may wait for a handshake, with descriptors left for others."""
        most = _QUEUED * self.max_tls_handshakes
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY:
            most = min(most, limit // 4)
        if self.max_connections is not None:
            most = min(most, self.max_connections - self.max_tls_handshakes)
        return max(most, 0)

    def _make_room(self) -> None:
        """Abort an unfinished handshake, if one has exceeded its time."""
        if self._handshakes is not None:
            self._handshakes.make_room()

    def _waits_for_room(self) -> bool:
        return self._acceptor is not None and self._acceptor.paused and self._acceptor.has_waiting_clients

    def _busy(self) -> bool:
        """Return whether a stop has to wait."""
        return bool(self._open)

    def _check_done(self) -> None:
        if self._idle is not None and not self._idle.done() and not self._busy():
            self._idle.set_result(None)

    async def _all_served(self) -> None:
        if self._busy():
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    async def _all_ended(self) -> None:
        """Wait for aborted connections, but not forever: faulty code may not end."""
        try:
            async with asyncio.timeout(_GRACE):
                await self._all_served()
        except TimeoutError:
            left = ", ".join(self._left())
            log.error("%s abandons unending connections: %s", self.full_name, left)  # noqa: TRY400
            self._forget()

    def _forget(self) -> None:
        """Remove all connections from the count."""
        self._open.clear()

    def _listening_sockets(self) -> Iterable[ListeningSocket]:
        for listener in self.listeners:
            for sock in listener.sockets:
                on_accept = self._on_accept_of(listener, sock)
                limit = self._limit_at(sock)
                guarded = on_accept if limit is None else limit.guard(on_accept)
                yield ListeningSocket(sock, guarded, shared=listener.shared, sole=listener.sole)

    async def _stop_accepting(self) -> None:
        if self._acceptor is not None and not self.restarting:
            await self._acceptor.finish(most=self.backlog)
        self._close_listening_sockets()

    def _close_listening_sockets(self) -> None:
        if self._acceptor is not None:
            self._gate.remove(self._acceptor)
            self._acceptor.close()
            self._acceptor = None
        if self._handshakes is not None:
            self._handshakes.close()
            self._handshakes = None
        if self._address_limit is not None:
            self._address_limit.close()
        if not self.restarting:
            self._close_listeners()

    def _notify_draining(self) -> None:
        """Notify the protocols of open connections that the server stops, or that nobody serves any more."""

    def _left(self) -> Iterable[str]:
        """Describe the remaining connections."""
        if self._open:
            peers = ", ".join(connection.peer for connection in islice(self._open, _NAMED))
            more = ", ..." if len(self._open) > _NAMED else ""
            yield f"{len(self._open)} connection{'s' * (len(self._open) > 1)} ({peers}{more})"

    def _abort_all(self) -> None:
        """Abort the remaining connections."""
        for connection in tuple(self._open):
            connection.abort()
