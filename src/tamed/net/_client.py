"""A client that keeps a connection up."""

import asyncio
import ssl as tls
from collections.abc import Callable
from random import random as system_random
from typing import Generic, TypeVar

from tamed._logger import own_logger
from tamed.errors import Unavailable, reason
from tamed.net._connect import ClientConnection, Dialer
from tamed.net._endpoint import Endpoint, as_endpoint
from tamed.service.restart import Backoff
from tamed.service.service import Service

__all__ = ["ClientService"]

log = own_logger("tamed.net")

P = TypeVar("P", bound=asyncio.BaseProtocol)


class ClientService(Service, Generic[P]):
    """Keeps a connection to an endpoint up while it runs; each has a protocol from ``protocol_factory``.

    When an attempt fails, or the connection is lost, the next attempt is made after a wait of
    ``backoff``, which begins anew with each connection. After ``limit`` failed attempts in a row (None:
    never) the service fails with `Unavailable`. ``connect_timeout`` is seconds for each address of the
    host, its TLS handshake included.

    With ``ssl``, a context or True, the connection is TLS; so it is for a ``tls://`` endpoint, whose
    certificate is shown to the server. Without a context of the user's own, the server's certificate is
    verified against the system's authorities and the endpoint's host. ``stop`` sends what was written, for
    ``close_timeout`` seconds at most, closes the connection and waits until it is closed.
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

    @property
    def summary(self) -> str:
        """Where it connects to."""
        return str(self.endpoint)

    async def wait_connected(self) -> P:
        """Return the protocol of the current connection; wait for the next one if there is none.

        Raises Unavailable if the service does not run, stops, or has used up its ``limit`` of attempts.
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
        """Read what TLS needs, while that may still be read."""
        self._dialer.load()

    async def start(self) -> None:
        """Let others wait for a connection."""
        self._absence = None

    async def run(self) -> None:
        """Connect, wait until the connection is lost, and so on."""
        try:
            while True:
                connection = await self._connect()
                await connection.closed.wait()
                self._protocol = self._connection = None
                wait = self._backoff.delay(1, self._random)
                log.warning("%s lost %s; it connects again in %.1f s", self.full_name, self.endpoint, wait)
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
            log.warning("%s cuts %s, which takes no more data", self.full_name, self.endpoint)
        finally:
            if connection.transport is not None:
                connection.transport.abort()
        await connection.closed.wait()

    async def _connect(self) -> ClientConnection:
        """Try until there is a connection, or the limit is reached."""
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
                why = reason(error)
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
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(self._protocol)
        log.info("%s is connected to %s", self.full_name, self.endpoint)
        return self._connection

    def _refuse(self, why: str) -> None:
        """Have everybody who waits for a connection, and who will, know that there is to be none."""
        self._absence = why
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(self._unavailable(why))

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"no connection to {self.endpoint}", why)
