"""The poem for aiomisc: ``aiomisc_poetry.py PORT POEM``."""

import sys
from pathlib import Path

from aiomisc import entrypoint
from aiomisc.service import TCPServer

poem = Path(sys.argv[2]).read_bytes()


class Poetry(TCPServer):
    async def handle_client(self, reader, writer):
        writer.write(poem)
        await writer.drain()
        writer.close()


with entrypoint(Poetry(address="127.0.0.1", port=int(sys.argv[1]))) as loop:
    loop.run_forever()
