"""One of the servers that connections are forwarded to."""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from ssl import SSLContext

from tamed.builtin._dial import connect, connect_unix, look_up, open_stream, within
from tamed.builtin._portforward._health import Health
from tamed.builtin._portforward._tls import ClientTls
from tamed.builtin._relay import Stream
from tamed.errors import ConfigurationError, reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint

__all__ = ["Upstream"]

log = own_logger("tamed.builtin")


class Upstream:
    """A server, its health, and how many connections to it are open (``connections``).

    ``timeout`` is seconds for each address of its host, and for the TLS handshake; ``pause`` is for how many
    seconds it is not tried when it is down. With ``tls``, TLS is spoken to it. ``clock`` tells the time that
    its health is judged by. Raises ConfigurationError for an endpoint that nobody can connect to.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,
        pause: float,
        tls: ClientTls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        what = f"cannot forward to {endpoint}"
        if not isinstance(endpoint, TcpEndpoint | TlsEndpoint | UnixEndpoint):
            raise ConfigurationError(what, "its sockets are inherited, for servers", "give an address")
        if not isinstance(endpoint, UnixEndpoint) and not (endpoint.host and endpoint.port):
            raise ConfigurationError(what, "it names no host or no port", "give HOST:PORT")
        self.endpoint = endpoint
        self.connections = 0
        self._tls = tls
        self._context: SSLContext | None = None
        self._timeout = timeout
        self._health = Health(pause)
        self._clock = clock

    @property
    def down_for(self) -> float:
        """For how many more seconds it is not worth a try; 0 if it is."""
        return self._health.down_for(self._clock())

    def load(self) -> None:
        """Read the files that TLS needs, if it is spoken. Raises what `ClientTls.context` does."""
        if self._tls is not None:
            self._context = self._tls.context()

    async def open(self, header: bytes = b"") -> Stream:
        """Connect, send a header in clear, speak TLS if that is to be, and take note of how it went.

        Raises OSError, that of the last address.
        """
        try:
            stream = await self._open(header)
        except OSError as error:
            if self._health.failed(self._clock()):
                log.warning("upstream %s is down: %s", self.endpoint, reason(error))
            raise
        if self._health.succeeded():
            log.warning("upstream %s is up", self.endpoint)
        return stream

    async def check(self, header: bytes) -> None:
        """Take note of whether it can be connected to; nothing but the header is sent there."""
        try:
            stream = await self.open(header)
        except OSError as error:
            log.debug("upstream %s failed a check: %s", self.endpoint, reason(error))
        else:
            stream.writer.close()

    async def _open(self, header: bytes) -> Stream:
        sock = await self._connect()
        try:
            async with within(self._timeout):
                await asyncio.get_running_loop().sock_sendall(sock, header)
        except BaseException:
            sock.close()
            raise
        if self._tls is None:
            return await open_stream(sock)
        host = "" if isinstance(self.endpoint, UnixEndpoint) else self.endpoint.host
        return await open_stream(sock, self._context, self._tls.name or host, self._timeout)

    async def _connect(self) -> socket.socket:
        if isinstance(self.endpoint, UnixEndpoint):
            return connect_unix(self.endpoint)
        error: OSError = OSError(errno.EADDRNOTAVAIL, "its host has no address")
        async with within(self._timeout):
            addresses = await look_up(self.endpoint.host, self.endpoint.port)
        for address in addresses:
            try:
                async with within(self._timeout):
                    return await connect(address)
            except OSError as failure:
                error = failure
        raise error
