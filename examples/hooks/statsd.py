"""Counts the events of the daemon in statsd: ``tamed run --workers 2 statsd.py``.

The server is ``127.0.0.1:8125``, or the one that the variable ``STATSD`` names.
"""

import os
import socket

from tamed import Application, Service, StreamServer, events


class Statsd(Service):
    """Sends a count for each event: ``tamed.death:1|c``."""

    async def run(self):
        host, _, port = os.environ.get("STATSD", "127.0.0.1:8125").rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            async for event in events():
                name = f"tamed.{event['event']}"
                if "outcome" in event:
                    name += f".{event['outcome']}"
                sock.sendto(f"{name}:1|c".encode(), (host, int(port)))


async def hello(reader, writer):
    writer.write(b"hello\n")
    writer.close()


application = Application("hello", Statsd(), StreamServer("localhost:10000", hello))
