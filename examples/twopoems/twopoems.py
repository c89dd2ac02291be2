"""Two poems on two ports, each in a multi-service of its own.

Tamed run examples/twopoems/twopoems.py, then nc localhost 10000 and nc localhost 10001.
"""

import asyncio
import logging
from pathlib import Path

from tamed import Application, MultiService, Service, StreamServer

log = logging.getLogger("twopoems")

POEMS = Path(__file__).parent.parent / "poetry"


class Poetry(Service):
    """Holds a poem. Knows nothing of protocols, so any protocol can serve it."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="poetry")
        self.path = path

    async def start(self) -> None:
        self.poem = self.path.read_bytes()
        log.info("loaded a poem from: %s", self.path)


def recital(poem: str, endpoint: str) -> MultiService:
    """A poem and the server that recites it, as one service: they start and stop together."""
    poetry = Poetry(POEMS / f"{poem}.txt")

    async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.info("sending %s to %s", poem, writer.get_extra_info("peername"))
        writer.write(poetry.poem)

    return MultiService(poem, poetry, StreamServer(endpoint, recite, name="server"))


application = Application(
    "twopoems",
    recital("ecstasy", "localhost:10000"),
    recital("science", "localhost:10001"),
)
