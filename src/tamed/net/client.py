"""Clients: a dialer, which connects once, and a service that keeps a connection open."""

import asyncio
import errno
import os
import socket
import ssl as tls
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import random as system_random
from typing import Any, Generic, TypeVar

from tamed._os.unix_sockets import abstract_address, connect_unix
from tamed.errors import ConfigurationError, Unavailable, reason
from tamed.log.logger import own_logger
from tamed.net._connection import Connection, Opening, TransportOpener
from tamed.net._lookup import in_thread
from tamed.net.bind import needs_lookup
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint, as_endpoint
from tamed.service.restart import Backoff
from tamed.service.service import Service, require_function

__all__ = ["ClientConnection", "ClientService", "Dialer", "connected", "connected_unix"]

log = own_logger("tamed.net")

P = TypeVar("P", bound=asyncio.BaseProtocol)
S = TypeVar("S", bound=socket.socket)


class ClientConnection(Connection):
    """A connection with an event, ``closed``, that is set when it is closed."""

    __slots__ = ("closed",)

    def __init__(self, family: socket.AddressFamily, kind: socket.SocketKind, proto: int = 0) -> None:
        self.closed = asyncio.Event()
        super().__init__(family, kind, proto, None, lambda _: self.closed.set())


class Dialer:
    """Connects to one endpoint: to each address of its host in turn, with ``timeout`` seconds for each.

    ``ssl`` is a context for TLS, or whether to use TLS with a context that verifies the server. The
    constructor raises ConfigurationError for an endpoint that clients cannot connect to.
    """

    def __init__(self, endpoint: Endpoint, ssl: tls.SSLContext | bool, timeout: float | None) -> None:
        self._what = f"cannot connect to {endpoint}"
        if not isinstance(endpoint, TcpEndpoint | TlsEndpoint | UnixEndpoint):
            raise ConfigurationError(self._what, "inherited sockets are for servers", "use an address")
        if isinstance(endpoint, UnixEndpoint):
            if ssl:
                raise ConfigurationError(self._what, "there is no TLS on a unix socket", "leave out ssl")
        elif not endpoint.host:
            raise ConfigurationError(self._what, "it means every interface", "use a host name")
        self._endpoint = endpoint
        self._timeout = timeout
        self._ssl = ssl
        self._context: tls.SSLContext | None = None

    def load(self) -> None:
        """Read the files for TLS. Raises ConfigurationError if they are invalid."""
        if isinstance(self._ssl, tls.SSLContext):
            self._context = self._ssl
        elif self._ssl or isinstance(self._endpoint, TlsEndpoint):
            self._context = tls.create_default_context()
            if isinstance(self._endpoint, TlsEndpoint):
                self._show_certificate(self._context, self._endpoint)

    def _show_certificate(self, context: tls.SSLContext, endpoint: TlsEndpoint) -> None:
        if endpoint.client_ca is not None or endpoint.more:
            why = f"{'client_ca' if endpoint.client_ca else 'a second certificate'} is for servers"
            raise ConfigurationError(self._what, why, "leave it out")
        try:
            context.load_cert_chain(endpoint.cert, endpoint.key)
        except OSError as error:  # SSLError is one
            raise ConfigurationError(f"TLS certificate {endpoint.cert}", reason(error)) from error

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> ClientConnection:
        """Return an open connection, with a protocol from ``factory``, which is called for each address.

        Raises the OSError of the last address.
        """
        if isinstance(self._endpoint, UnixEndpoint):
            connection = ClientConnection(socket.AF_UNIX, socket.SOCK_STREAM)
            return await self._open(connected_unix(connection, self._endpoint), factory)
        host, port = self._endpoint.host.encode("ascii"), self._endpoint.port
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await in_thread(look_up) if needs_lookup(self._endpoint) else look_up()
        error = OSError(f"{self._endpoint.host} has no address")
        for family, kind, proto, _, address in found:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await connected(ClientConnection(family, kind, proto), address)
                    return await self._open(connection, factory)
            except TimeoutError:
                error = TimeoutError(errno.ETIMEDOUT, f"no answer within {self._timeout:g} s")
            except OSError as failure:
                error = failure
        raise error

    async def _open(
        self, connection: ClientConnection, factory: Callable[[], asyncio.BaseProtocol]
    ) -> ClientConnection:
        """Open the transport of a connected socket."""
        loop = asyncio.get_running_loop()
        if self._context is None:
            # Not `create_connection`: there uvloop attaches the socket to the transport too late, and if a
            # protocol closes in `connection_made`, the socket would stay open.
            opening = loop.connect_accepted_socket(factory, connection)
        else:
            assert not isinstance(self._endpoint, UnixEndpoint)
            opening = loop.create_connection(
                factory, sock=connection, ssl=self._context, server_hostname=self._endpoint.host
            )
        await _opened(connection, opening)
        return connection


async def _opened(connection: ClientConnection, opening: Opening) -> None:
    """Open a connection; a cancellation does not cancel the loop's coroutine, but aborts the connection."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(_: Connection) -> None:
        if not done.done():
            done.set_result(None)

    def failed(_: Connection, error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    opener = TransportOpener(failed)
    opener.opened = opened
    opener.begin(connection, opening)
    try:
        await done
    except asyncio.CancelledError:
        connection.abort()
        done.cancelled() or done.exception()
        raise


async def connected(sock: S, address: Any) -> S:
    """Connect a socket, which is then non-blocking, or close it. Raises OSError with the system's text."""
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno:  # the loops have other texts, without the reason
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise
    return sock


def connected_unix(sock: S, endpoint: UnixEndpoint) -> S:
    """Do the same for a unix socket. Does not wait: a full backlog raises OSError."""
    try:
        sock.setblocking(False)
        # Not with the loop, which takes the error of a full backlog for a connection in progress.
        if endpoint.abstract:
            sock.connect(abstract_address(endpoint.path))
        else:
            connect_unix(sock, Path(endpoint.path))
    except BaseException:
        sock.close()
        raise
    return sock


class ClientService(Service, Generic[P]):
    """Keeps a connection to an endpoint open while it runs; each has a protocol from ``protocol_factory``.

    When an attempt fails, or the connection is lost, the next attempt is made after a wait of
    ``backoff``, which starts again after each connection that lasts longer than the last wait: a server that
    accepts and closes is not asked ten times a second. After ``limit`` failed attempts in a row (None: no
    limit) the service fails with `Unavailable`. ``connect_timeout`` is seconds for each address of the
    host, including the TLS handshake.

    The connection uses TLS with ``ssl``, a context or True, and for a ``tls://`` endpoint, whose certificate
    is sent to the server. Without a context, the server's certificate is verified against the system's
    authorities and the endpoint's host. ``stop`` sends buffered data, for ``close_timeout`` seconds at most,
    closes the connection and waits until it is closed.
    """

    def __init__(
        self,
        endpoint: str | Endpoint,
        protocol_factory: Callable[[], P],
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 - it is immutable
        limit: int | None = None,
        connect_timeout: float | None = 30.0,
        close_timeout: float = 5.0,
        ssl: tls.SSLContext | bool = False,
        name: str | None = None,
        random: Callable[[], float] = system_random,
    ) -> None:
        super().__init__(name)
        self.endpoint = as_endpoint(endpoint)
        require_function(self, "protocol factory", protocol_factory)
        self._protocol_factory = protocol_factory
        self._backoff = backoff
        self._limit = limit
        self._close_timeout = close_timeout
        self._random = random
        self._dialer = Dialer(self.endpoint, ssl, connect_timeout)
        self._connection: ClientConnection | None = None
        self._protocol: P | None = None
        self._waiting: set[asyncio.Future[P]] = set()
        self._absence: str | None = "the client is not running"
        self._trouble = ""

    @property
    def summary(self) -> str:
        """The endpoint, and the reason if it runs without a connection."""
        return f"{self.endpoint}, not connected: {self._trouble}" if self._trouble else str(self.endpoint)

    async def wait_connected(self) -> P:
        """Return the protocol of the current connection; wait for the next one if there is none.

        Raises Unavailable if the service is not running, stops, or has used up its ``limit`` of attempts.
        """
        if self._protocol is not None:
            return self._protocol
        if self._absence is not None:
            raise self._unavailable(self._absence)
        waiting: asyncio.Future[P] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            return await waiting
        finally:
            self._waiting.discard(waiting)

    async def prepare(self) -> None:
        """Read the files for TLS, while this process still has the permission."""
        self._dialer.load()

    async def start(self) -> None:
        """Allow `wait_connected`."""
        self._absence = None

    async def run(self) -> None:
        """Connect, and connect again each time the connection is lost."""
        clock = asyncio.get_running_loop().time
        losses, wait = 0, 0.0
        try:
            while True:
                connection = await self._connect()
                opened = clock()
                await connection.closed.wait()
                self._protocol = self._connection = None
                losses = 1 if clock() - opened >= wait else losses + 1
                wait = self._backoff.delay(losses, self._random)
                self._trouble = "the connection was lost"
                log.warning("%s lost %s; next attempt in %.1f s", self.full_name, self.endpoint, wait)
                await asyncio.sleep(wait)
        except Exception as error:
            self._refuse(error.why if isinstance(error, Unavailable) else reason(error))
            raise

    async def stop(self) -> None:
        """Close the connection, and wait until it is closed."""
        self._refuse("the client was stopped")
        connection, self._connection, self._protocol = self._connection, None, None
        if connection is None or connection.transport is None:
            return
        connection.transport.close()
        try:
            async with asyncio.timeout(self._close_timeout):
                await connection.closed.wait()
        except TimeoutError:
            log.warning(
                "%s aborts its connection to %s, which accepts no data", self.full_name, self.endpoint
            )
        finally:
            if connection.transport is not None:
                connection.transport.abort()
        await connection.closed.wait()

    async def _connect(self) -> ClientConnection:
        """Try until the connection is open, or the limit is reached."""
        failures = 0
        while True:
            try:
                return await self._connect_once()
            except OSError as error:
                failures += 1
                if failures == self._limit:
                    attempts = f"{failures} attempt{'s' * (failures > 1)}"
                    raise self._unavailable(f"{reason(error)}, after {attempts}") from error
                wait = self._backoff.delay(failures, self._random)
                self._trouble = why = reason(error)
                log.warning(
                    "%s cannot reach %s: %s; next attempt in %.1f s", self.full_name, self.endpoint, why, wait
                )
                await asyncio.sleep(wait)

    async def _connect_once(self) -> ClientConnection:
        made: list[P] = []

        def factory() -> P:
            made.append(self._protocol_factory())
            return made[-1]

        self._connection = await self._dialer.connect(factory)
        self._protocol = made[-1]
        self._trouble = ""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(self._protocol)
        log.info("%s is connected to %s", self.full_name, self.endpoint)
        return self._connection

    def _refuse(self, why: str) -> None:
        """Raise Unavailable in all callers of `wait_connected`, now and later."""
        self._absence = why
        self._trouble = ""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(self._unavailable(why))

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"no connection to {self.endpoint}", why)
