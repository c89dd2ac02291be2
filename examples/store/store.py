"""A key-value store over TCP. A client sends lines: ``set KEY VALUE``, ``get KEY``, ``delete KEY``.

The values are in memory. A job in the background writes them to a file: ``store.json``, or what the
variable ``STORE`` names.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from tamed import Application, MultiService, Only, Service, StreamServer, TimerService

log = logging.getLogger("store")


class Store(Service):
    """Holds the values: reads them at its start, and writes them at its stop."""

    def __init__(self, file: Path) -> None:
        super().__init__(name="values")
        self.file = file
        self.values: dict[str, str] = {}
        self.is_saved = True

    async def start(self) -> None:
        if self.file.exists():
            self.values = json.loads(self.file.read_text("utf-8"))
        log.info("%d values from %s", len(self.values), self.file)

    async def stop(self) -> None:
        self.save()

    def save(self) -> None:
        """Write what has changed. A crash leaves the old file or the new one."""
        if not self.is_saved:
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(self.values), "utf-8")
            new.replace(self.file)
            self.is_saved = True

    def answer(self, line: str) -> str:
        match line.split(maxsplit=2):
            case ["set", key, value]:
                self.values[key] = value
                self.is_saved = False
                return "ok"
            case ["get", key]:
                return self.values.get(key, "")
            case ["delete", key]:
                self.values.pop(key, None)
                self.is_saved = False
                return "ok"
        return "error: set KEY VALUE, get KEY, or delete KEY"


store = Store(Path(os.environ.get("STORE", "store.json")))


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer lines until the client leaves, or until the server stops and no request is under way."""
    stopping = asyncio.create_task(server.draining.wait())
    try:
        while line := await next_line(reader, stopping):
            writer.write(f"{store.answer(line.decode().strip())}\n".encode())
            await writer.drain()
    finally:
        stopping.cancel()


async def next_line(reader: asyncio.StreamReader, stopping: asyncio.Task[bool]) -> bytes:
    """Return a request; nothing at the end, or when the server stops."""
    reading = asyncio.create_task(reader.readline())
    await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        return reading.result()
    reading.cancel()
    return b""


server = StreamServer("localhost:10000", talk, name="server")
job = TimerService(10, store.save, name="save")
application = Application("store", Only(MultiService("store", store, server, job)))
