"""Bare event loops that serve a poem: ``loops.py KIND LOOP PORT POEM``.

KIND is ``accept`` (accept, send and close on raw sockets, in the loop), ``protocol``, ``streams`` or ``idle``
(a protocol that keeps its connections, and closes them at SIGTERM). LOOP is ``asyncio`` or ``uvloop``.
"""

import asyncio
import signal
import socket
import sys
from pathlib import Path

BACKLOG = 4096


class Poetry(asyncio.Protocol):
    """Sends the poem and closes."""

    poem = b""

    def connection_made(self, transport):
        transport.write(self.poem)
        transport.close()


async def recite(_, writer):
    """Send the poem and close."""
    writer.write(Poetry.poem)
    writer.close()


class Idle(asyncio.Protocol):
    """Waits for its peer."""

    transports = set()
    all_lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.transports.add(transport)

    def connection_lost(self, error):
        self.transports.discard(self.transport)
        if not self.transports:
            self.all_lost.set()


def accept_all(listener):
    """Serve whoever waits."""
    poem = Poetry.poem
    for _ in range(16):
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        client.send(poem)
        client.close()


async def main(kind, port):
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, stopped.set_result, None)
    if kind == "accept":
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        listener.setblocking(False)
        loop.add_reader(listener, accept_all, listener)
        await stopped
        return
    if kind == "streams":
        server = await asyncio.start_server(recite, "127.0.0.1", port, backlog=BACKLOG)
    else:
        protocol = Idle if kind == "idle" else Poetry
        server = await loop.create_server(protocol, "127.0.0.1", port, backlog=BACKLOG)
    await stopped
    server.close()
    for transport in Idle.transports.copy():
        transport.close()
    if Idle.transports:
        Idle.all_lost.clear()
        await Idle.all_lost.wait()


if __name__ == "__main__":
    kind, loop_name, port, poem = sys.argv[1:]
    Poetry.poem = Path(poem).read_bytes()
    new_loop = None
    if loop_name == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(kind, int(port)))
