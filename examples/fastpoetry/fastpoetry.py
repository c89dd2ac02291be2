"""Fast poetry as an application file.

Tamed run examples/fastpoetry/fastpoetry.py, then nc localhost 10000.
"""

import asyncio
import logging
from pathlib import Path

from tamed import Application, Service, StreamServer

log = logging.getLogger("fastpoetry")


class Poetry(Service):
    """Holds the poem. Knows nothing of protocols, so any protocol can serve it."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="poetry")
        self.path = path

    async def start(self) -> None:
        self.poem = self.path.read_bytes()
        log.info("loaded a poem from: %s", self.path)


poetry = Poetry(Path(__file__).parent.parent / "poetry" / "ecstasy.txt")


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    log.info("sending %d bytes of poetry to %s", len(poetry.poem), writer.get_extra_info("peername"))
    writer.write(poetry.poem)


application = Application("fastpoetry", poetry, StreamServer("localhost:10000", recite))
