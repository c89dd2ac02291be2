"""Fetching a poem from a poetry server: connect, and read to the end."""

import asyncio
from dataclasses import dataclass

from tamed.builtin._dial import connect_unix
from tamed.errors import ConfigurationError, Unavailable, reason
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint

__all__ = ["PoemUpstream"]

_CHUNK = 1 << 16


@dataclass(frozen=True)
class PoemUpstream:
    """A poetry server that poems are fetched from.

    A poem of more than ``limit`` bytes, and one that is not there within ``timeout`` seconds, is refused. A
    server that is reset, or sends nothing at all, has sent no poem. Raises ConfigurationError, when it is
    made, for an endpoint that is neither HOST:PORT nor a unix socket.
    """

    endpoint: Endpoint
    limit: int
    timeout: float

    def __post_init__(self) -> None:
        named = isinstance(self.endpoint, TcpEndpoint) and self.endpoint.host
        if not named and not isinstance(self.endpoint, UnixEndpoint):
            raise ConfigurationError(f"upstream {self.endpoint}", "expected HOST:PORT or unix:PATH")

    async def fetch(self) -> bytes:
        """Return the poem. Raises Unavailable, with the reason."""
        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = await self._connect()
                try:
                    return await self._read(reader)
                finally:
                    writer.close()
        except TimeoutError as error:
            raise self._unavailable(f"it is not done within {self.timeout:g} s") from error
        except OSError as error:
            raise self._unavailable(reason(error)) from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.endpoint, UnixEndpoint):
            return await asyncio.open_unix_connection(sock=connect_unix(self.endpoint))
        assert isinstance(self.endpoint, TcpEndpoint)
        return await asyncio.open_connection(self.endpoint.host, self.endpoint.port)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        poem = bytearray()
        while chunk := await reader.read(_CHUNK):
            poem += chunk
            if len(poem) > self.limit:
                raise self._unavailable(f"the poem is longer than {self.limit} bytes")
        if not poem:
            raise self._unavailable("it sends nothing")
        return bytes(poem)

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"no poem from {self.endpoint}", why)
