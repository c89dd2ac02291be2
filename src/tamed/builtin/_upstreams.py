"""The servers that connections are forwarded to: their selection, their connections, their health."""

import asyncio
import errno
import socket
import ssl as tls
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tamed.builtin._relay import Stream, connect, connect_unix, look_up, open_stream, time_limit
from tamed.errors import ConfigurationError, Unavailable, from_os_error, reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint

__all__ = ["Balancer", "ClientTls", "Health", "Upstream"]

log = own_logger("tamed.builtin")

_FALL: Final = 2
"""Failures in a row after which an upstream is down."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS as a client: how to verify servers, and the certificate to present. All files are PEM.

    Certificates are verified against ``ca`` (None: the system's authorities) and must be for ``name`` (empty:
    the host that is connected to), unless ``verify`` is false. ``cert``, with its ``key`` (None: in the same
    file), is presented to servers that request one.
    """

    ca: Path | None = None
    name: str = ""
    verify: bool = True
    cert: Path | None = None
    key: Path | None = None

    def showing(self, endpoint: TlsEndpoint) -> "ClientTls":
        """Return the same, with the certificate of an endpoint."""
        return replace(self, cert=endpoint.cert, key=endpoint.key)

    def context(self) -> tls.SSLContext:
        """Read the files. Raises ConfigurationError, MissingInput and PermissionRefused."""
        context = tls.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = tls.CERT_NONE
        elif self.ca is not None:
            context = tls.create_default_context(cafile=_readable(self.ca))
        if self.cert is not None:
            _show(context, self.cert, self.key)
        return context


def _show(context: tls.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(_readable(cert), key and _readable(key))
    except tls.SSLError as error:
        raise ConfigurationError(f"TLS certificate {cert}", reason(error)) from error


def _readable(file: Path) -> Path:
    try:
        file.open("rb").close()
    except OSError as error:
        raise from_os_error(f"TLS file {file}", error, "use a readable file") from error
    return file


class Health:
    """The health of an upstream by its last connections, both those for clients and those of checks.

    After two failures in a row it is down for ``pause`` seconds; then one more failure is enough. The first
    success brings it up. Times are seconds of any clock.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._failures = 0
        self._down_until = 0.0

    def record_failure(self, now: float) -> bool:
        """Record a failure; return whether the upstream is down from now on, and was up before."""
        was_up = self._failures < _FALL
        self._failures += 1
        if self._failures < _FALL:
            return False
        self._down_until = now + self._pause
        return was_up

    def record_success(self) -> bool:
        """Record a success; return whether the upstream was down until now."""
        was_down = self._failures >= _FALL
        self._failures = 0
        self._down_until = 0.0
        return was_down

    def down_for(self, now: float) -> float:
        """Return the seconds until the next try; 0 if it is up."""
        return max(0.0, self._down_until - now)


class Upstream:
    """A server, its health, and how many connections to it are open (``connections``).

    ``timeout`` is seconds for each address of its host, and for the TLS handshake; ``pause`` is the seconds
    for which it is tried last when it is down. ``client_tls`` enables TLS to it. ``clock`` is the clock of
    its health. Raises ConfigurationError for an endpoint that cannot be connected to.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,
        pause: float,
        client_tls: ClientTls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        what = f"cannot forward to {endpoint}"
        if not isinstance(endpoint, TcpEndpoint | TlsEndpoint | UnixEndpoint):
            raise ConfigurationError(what, "inherited sockets are for servers", "use an address")
        if not isinstance(endpoint, UnixEndpoint) and not (endpoint.host and endpoint.port):
            raise ConfigurationError(what, "it has no host or no port", "use HOST:PORT")
        self.endpoint = endpoint
        self.connections = 0
        self._tls = client_tls
        self._context: tls.SSLContext | None = None
        self._timeout = timeout
        self._health = Health(pause)
        self._clock = clock

    @property
    def down_for(self) -> float:
        return self._health.down_for(self._clock())

    def load(self) -> None:
        """Read the files of TLS, if it is used. Raises the exceptions of `ClientTls.context`."""
        if self._tls is not None:
            self._context = self._tls.context()

    async def open(self, header: bytes = b"") -> Stream:
        """Connect, send a header unencrypted, begin TLS if it is used, and record the result.

        Raises OSError, that of the last address.
        """
        try:
            stream = await self._open(header)
        except OSError as error:
            if self._health.record_failure(self._clock()):
                log.warning("upstream %s is down: %s", self.endpoint, reason(error))
            raise
        if self._health.record_success():
            log.warning("upstream %s is up", self.endpoint)
        return stream

    async def check(self, header: bytes) -> None:
        """Connect once, and record the result; only the header is sent."""
        try:
            stream = await self.open(header)
        except OSError as error:
            log.debug("upstream %s failed a check: %s", self.endpoint, reason(error))
        else:
            stream.writer.close()

    async def _open(self, header: bytes) -> Stream:
        sock = await self._connect()
        try:
            async with time_limit(self._timeout):
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
        async with time_limit(self._timeout):
            addresses = await look_up(self.endpoint.host, self.endpoint.port)
        for address in addresses:
            try:
                async with time_limit(self._timeout):
                    return await connect(address)
            except OSError as failure:
                error = failure
        raise error


class Balancer:
    """Gives each connection to the upstream with the fewest connections, or to the next one if that fails.

    Among equals, the one that was chosen longest ago comes first. Those that are down come last, the one
    whose pause ends soonest first: when all are down, a try is better than none.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = list(upstreams)  # least recently chosen first

    @asynccontextmanager
    async def connection(self, header: bytes) -> AsyncIterator[tuple[Upstream, Stream]]:
        """Connect to the first upstream that can be reached, which counts this connection during the block.

        The header is sent first. Raises Unavailable if no upstream can be reached.
        """
        why = ""
        for upstream in self.order():
            with self._counted(upstream):
                try:
                    stream = await upstream.open(header)
                except OSError as error:
                    why = f"{upstream.endpoint}: {reason(error)}"
                    log.info("upstream %s", why)
                    continue
                yield upstream, stream
                return
        raise Unavailable("no upstream can be reached", why)

    def order(self) -> list[Upstream]:
        """Return the upstreams in the order of the attempts."""
        return sorted(self.upstreams, key=lambda upstream: (upstream.down_for, upstream.connections))

    @contextmanager
    def _counted(self, upstream: Upstream) -> Iterator[None]:
        upstream.connections += 1
        self.upstreams.remove(upstream)
        self.upstreams.append(upstream)
        try:
            yield
        finally:
            upstream.connections -= 1
