"""A poetry proxy: it fetches the poem of another server once, and serves it from then on.

Tamed run fastpoetry, tamed run examples/poetryproxy/poetryproxy.py, then nc localhost 10001.
The plugin poetryproxy, which comes with tamed, does more: it refreshes, has limits, and cancels a fetch that
nobody waits for.
"""

import asyncio
import logging

from tamed import Application, Service, StreamServer

log = logging.getLogger("poetryproxy")


class Proxy(Service):
    """Has the poem of another server. Whoever asks while it is being fetched waits for that one fetch."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(name="proxy")
        self.host = host
        self.port = port

    async def start(self) -> None:
        self.lock = asyncio.Lock()
        self.poem = b""

    async def get_poem(self) -> bytes:
        async with self.lock:
            if not self.poem:
                self.poem = await self.fetch()
                log.info("fetched %d bytes of poetry", len(self.poem))
            return self.poem

    async def fetch(self) -> bytes:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            return await reader.read()
        finally:
            writer.close()


proxy = Proxy("localhost", port=10000)


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(10):
            poem = await proxy.get_poem()
    except OSError as error:  # a timeout is one too
        log.warning("there is no poem: %s", error or "it takes too long")
    else:
        writer.write(poem)


application = Application("poetryproxy", proxy, StreamServer("localhost:10001", recite, name="server"))
