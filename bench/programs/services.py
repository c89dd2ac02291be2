"""An application for `tamed run services.py`: what the environment variables say, on our servers.

BENCH_KIND is ``reply``, ``protocol``, ``streams``, ``idle`` (as in ``loops.py``, whose handlers these are),
``lines`` (logs BENCH_LINES lines as fast as it can when there is a file BENCH_GO) or ``access`` (the same, as
our own servers log); the others are BENCH_PORT, BENCH_POEM and BENCH_IMPORT_SECONDS.
"""

import asyncio
import logging
import os
import time
from pathlib import Path

from tamed import Application, ProtocolServer, ReplyServer, Service, StreamServer
from tamed.log.logger import AccessLog

time.sleep(float(os.environ.get("BENCH_IMPORT_SECONDS", "0")))

kind = os.environ["BENCH_KIND"]
endpoint = f"127.0.0.1:{os.environ.get('BENCH_PORT', '0')}"
poem = Path(os.environ["BENCH_POEM"]).read_bytes()
log = logging.getLogger("bench")


class Poetry(asyncio.Protocol):
    """Sends the poem and closes."""

    def connection_made(self, transport):
        transport.write(poem)
        transport.close()


async def recite(_, writer):
    """Send the poem and close."""
    writer.write(poem)
    writer.close()


class Idle(asyncio.Protocol):
    """Waits for its peer, or for the server to stop."""

    def connection_made(self, transport):
        self.transport = transport

    def connection_draining(self):
        self.transport.close()


class Lines(Service):
    """Logs as fast as it can, when it is told to."""

    async def run(self):
        go, lines = Path(os.environ["BENCH_GO"]), int(os.environ["BENCH_LINES"])
        while not go.exists():
            await asyncio.sleep(0.002)
        self.log(lines, len(poem))
        await asyncio.Event().wait()

    def log(self, lines, size):
        for number in range(lines):
            log.info("sending %d bytes of poetry to %s", size, number)


class AccessLines(Lines):
    """Does so through an access log."""

    def log(self, lines, size):
        access = AccessLog(log)
        for number in range(lines):
            access.add("sending %d bytes of poetry to %s", size, number)


services = {
    "reply": lambda: ReplyServer(endpoint, lambda _: poem),
    "protocol": lambda: ProtocolServer(endpoint, Poetry),
    "streams": lambda: StreamServer(endpoint, recite),
    "idle": lambda: ProtocolServer(endpoint, Idle),
    "lines": Lines,
    "access": AccessLines,
}
application = Application("bench", services[kind]())
