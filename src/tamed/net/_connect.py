"""How a client connects to an endpoint."""

import asyncio
import errno
import os
import socket
import ssl as tls
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tamed.errors import ConfigurationError, reason
from tamed.net._bind_unix import short_path
from tamed.net._connection import Connection, Opening, Openings, SocketConnection
from tamed.net._endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint

__all__ = ["ClientConnection", "Dialer"]


class ClientConnection(SocketConnection):
    """A connection that one may wait for the end of: ``closed`` is set then."""

    __slots__ = ("closed",)

    def __init__(self, family: socket.AddressFamily, kind: socket.SocketKind, proto: int = 0) -> None:
        self.closed = asyncio.Event()
        super().__init__(family, kind, proto, None, lambda _: self.closed.set())


class Dialer:
    """Connects to one endpoint: to each address of its host in turn, with ``timeout`` seconds for each.

    ``ssl`` is a context for TLS, or whether to use TLS with a context that verifies the server. Raises
    ConfigurationError, when it is made, for an endpoint that nobody can connect to.
    """

    def __init__(self, endpoint: Endpoint, ssl: tls.SSLContext | bool, timeout: float | None) -> None:
        self._what = f"cannot connect to {endpoint}"
        if not isinstance(endpoint, TcpEndpoint | TlsEndpoint | UnixEndpoint):
            raise ConfigurationError(self._what, "its sockets are inherited, for servers", "give an address")
        if isinstance(endpoint, UnixEndpoint):
            if ssl:
                raise ConfigurationError(self._what, "there is no TLS on a unix socket", "leave out ssl")
        elif not endpoint.host:
            raise ConfigurationError(self._what, "it stands for every interface", "name a host")
        self._endpoint = endpoint
        self._timeout = timeout
        self._ssl = ssl
        self._context: tls.SSLContext | None = None

    def load(self) -> None:
        """Read the files that TLS needs. Raises ConfigurationError if they are not what they should be."""
        if isinstance(self._ssl, tls.SSLContext):
            self._context = self._ssl
        elif self._ssl or isinstance(self._endpoint, TlsEndpoint):
            self._context = tls.create_default_context()
            if isinstance(self._endpoint, TlsEndpoint):
                self._show_certificate(self._context, self._endpoint)

    def _show_certificate(self, context: tls.SSLContext, endpoint: TlsEndpoint) -> None:
        if endpoint.client_ca is not None:
            raise ConfigurationError(self._what, "client_ca is for servers", "leave it out")
        try:
            context.load_cert_chain(endpoint.cert, endpoint.key)
        except OSError as error:  # SSLError is one
            raise ConfigurationError(f"TLS certificate {endpoint.cert}", reason(error)) from error

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> ClientConnection:
        """Return an open connection, with a protocol from ``factory``, which is called for each address.

        Raises OSError, that of the last address.
        """
        if isinstance(self._endpoint, UnixEndpoint):
            return await self._open(_connected_unix(self._endpoint), factory)
        error = OSError(f"{self._endpoint.host} has no address")
        for family, kind, proto, _, address in await asyncio.get_running_loop().getaddrinfo(
            self._endpoint.host, self._endpoint.port, type=socket.SOCK_STREAM
        ):
            try:
                async with asyncio.timeout(self._timeout):
                    connected = await _connected(ClientConnection(family, kind, proto), address)
                    return await self._open(connected, factory)
            except TimeoutError:
                error = TimeoutError(errno.ETIMEDOUT, f"no answer within {self._timeout:g} s")
            except OSError as failure:
                error = failure
        raise error

    async def _open(
        self, connection: ClientConnection, factory: Callable[[], asyncio.BaseProtocol]
    ) -> ClientConnection:
        """Give a connected socket its transport."""
        loop = asyncio.get_running_loop()
        if self._context is None:
            # Not `create_connection`: uvloop attaches the socket to the transport too late there, so a
            # protocol that closes in `connection_made` would leave a socket that nobody closes.
            opening = loop.connect_accepted_socket(factory, connection)
        else:
            assert not isinstance(self._endpoint, UnixEndpoint)
            opening = loop.create_connection(
                factory, sock=connection, ssl=self._context, server_hostname=self._endpoint.host
            )
        await _opened(connection, opening)
        return connection


async def _opened(connection: ClientConnection, opening: Opening) -> None:
    """Open a connection; a cancellation does not reach into the loop's own, but aborts the connection."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def opened(_: Connection) -> None:
        if not done.done():
            done.set_result(None)

    def failed(_: Connection, error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    openings = Openings(failed)
    openings.opened = opened
    openings.begin(connection, opening)
    try:
        await done
    except asyncio.CancelledError:
        connection.abort()
        done.cancelled() or done.exception()
        raise


async def _connected(connection: ClientConnection, address: Any) -> ClientConnection:
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError) and error.errno:
            # In the system's words; the loops have others, which do not say why.
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise
    return connection


def _connected_unix(endpoint: UnixEndpoint) -> ClientConnection:
    connection = ClientConnection(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        # Not by the loop, which would take the refusal of a full backlog (EAGAIN) for a promise.
        if endpoint.abstract:
            connection.connect(b"\0" + endpoint.path.removeprefix("@").encode("utf-8", "surrogateescape"))
        else:
            with short_path(Path(endpoint.path)) as name:
                connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection
