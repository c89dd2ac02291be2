"""Two services in one process, one of which calls the other: it was given a reference to it.

Tamed run examples/twoservices/twoservices.py, then nc localhost 10000 for the poem and nc localhost 10001
for what became of it.
"""

import asyncio
from pathlib import Path
from typing import cast

from tamed import Application, Service, StreamServer


class Poetry(Service):
    """Holds the poem, and counts how often it was recited."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="poetry")
        self.path = path
        self.recited = 0

    async def start(self) -> None:
        self.poem = self.path.read_bytes()

    def recite(self) -> bytes:
        self.recited += 1
        return self.poem


class Critic(Service):
    """Has an opinion of the poetry. It is added after it, and so it starts when that is ready."""

    def __init__(self, poetry: Poetry) -> None:
        super().__init__(name="critic")
        self.poetry = poetry

    async def start(self) -> None:
        self.title = self.poetry.poem.splitlines()[0].decode()

    def review(self) -> str:
        if not self.poetry.recited:
            return f"{self.title}: nobody has heard it yet.\n"
        return f"{self.title}: heard {self.poetry.recited} times, and still good.\n"


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(poetry.recite())


async def review(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(critic.review().encode())


application = Application("twoservices")
application.add(Poetry(Path(__file__).parent.parent / "poetry" / "ecstasy.txt"))

poetry = cast(Poetry, application["poetry"])  # services are looked up by their names
critic = Critic(poetry)  # and passed in like any other object

application.add(critic)
application.add(StreamServer("localhost:10000", recite, name="recital"))
application.add(StreamServer("localhost:10001", review, name="reviews"))
