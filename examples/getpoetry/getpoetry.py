"""Get poems from several servers at once: python getpoetry.py localhost:10000 localhost:10001.

Where each stands is told on stderr, a line for each server. The poems go to stdout, in the order of
the servers. The exit status is 1 if there is one that could not be had.
"""

import argparse
import asyncio
import os
import sys
from typing import BinaryIO, TextIO


class Progress:
    """A line for each server. On a terminal it changes in place; elsewhere it is written when it is final."""

    def __init__(self, servers: list[str], out: TextIO) -> None:
        self.lines = dict.fromkeys(servers, "waiting")
        self.out = out
        self.width = max(map(len, servers))
        if out.isatty():
            out.write("\n" * len(self.lines))
            self.redraw()

    def tell(self, server: str, state: str, *, final: bool = False) -> None:
        self.lines[server] = state
        if self.out.isatty():
            self.redraw()
        elif final:
            self.out.write(f"{server:{self.width}}  {state}\n")
        self.out.flush()

    def redraw(self) -> None:
        self.out.write(f"\x1b[{len(self.lines)}A")  # as many lines up
        for server, state in self.lines.items():
            self.out.write(f"\r\x1b[K{server:{self.width}}  {state}\n")


async def get_poem(server: str, progress: Progress, patience: float) -> bytes | None:
    """Read a server's poem to the end; None if that cannot be done within so many seconds."""
    poem = b""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await connect(server)
            try:
                while chunk := await reader.read(4096):
                    poem += chunk
                    progress.tell(server, f"{len(poem)} bytes")
            finally:
                writer.close()
    except OSError as error:  # a timeout is one too
        why = os.strerror(error.errno) if error.errno else str(error) or f"not done within {patience:g} s"
        progress.tell(server, f"failed after {len(poem)} bytes: {why}", final=True)
        return None
    progress.tell(server, f"{len(poem)} bytes, done", final=True)
    return poem


async def connect(server: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if server.startswith("unix:"):
        return await asyncio.open_unix_connection(server.removeprefix("unix:"))
    host, _, port = server.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def get_poems(servers: list[str], progress: Progress, patience: float) -> list[bytes | None]:
    """Read the poems of all servers at the same time."""
    return await asyncio.gather(*(get_poem(server, progress, patience) for server in servers))


def server_address(text: str) -> str:
    """Check an address as the command line has it: HOST:PORT, [IPV6]:PORT or unix:PATH."""
    port = text.rpartition(":")[2]
    if not text.startswith("unix:") and not (port.isdecimal() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT or unix:PATH, got {text!r}")
    return text


def main(arguments: list[str], out: BinaryIO, err: TextIO) -> int:
    parser = argparse.ArgumentParser(description="Get poems from several servers at once.")
    parser.add_argument("servers", nargs="+", type=server_address, metavar="HOST:PORT")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for each poem (default: 30)")
    given = parser.parse_args(arguments)
    servers = list(dict.fromkeys(given.servers))
    poems = asyncio.run(get_poems(servers, Progress(servers, err), given.timeout))
    out.writelines(poem for poem in poems if poem is not None)
    out.flush()
    return 1 if None in poems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout.buffer, sys.stderr))
