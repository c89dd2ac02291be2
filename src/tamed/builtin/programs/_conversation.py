"""A client and a program that talk to each other: passing their bytes on, and the end of each side."""

import asyncio
import socket
from contextlib import suppress
from typing import Final

__all__ = ["converse"]

_PIECE: Final = 64 * 1024


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, program: socket.socket
) -> None:
    """Pass on what client and program say until all that the program has to say was passed on.

    ``program`` is our end of its socket, non-blocking, and used without a transport, as one direction must
    go on when the other is broken: a program may close with input unread and still be owed its last words.
    When the client is gone the program reads to the end of its input, and cannot write any more.
    """
    inbound = asyncio.ensure_future(_to_program(reader, program))
    try:
        await _to_client(program, writer)
    finally:
        inbound.cancel()
        await asyncio.wait([inbound])


async def _to_program(reader: asyncio.StreamReader, program: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # the program does not read any more, or the client is gone
        while data := await reader.read(_PIECE):
            await loop.sock_sendall(program, data)
    with suppress(OSError):
        program.shutdown(socket.SHUT_WR)


async def _to_client(program: socket.socket, writer: asyncio.StreamWriter) -> None:
    while data := await _said_by(program):
        writer.write(data)
        try:
            await writer.drain()
        except OSError:
            with suppress(OSError):
                program.shutdown(socket.SHUT_RDWR)
            return


async def _said_by(program: socket.socket) -> bytes:
    """Return what a program says, and nothing at its end."""
    try:
        return await asyncio.get_running_loop().sock_recv(program, _PIECE)
    except (
        ConnectionResetError
    ):  # it has ended with input unread; the system tells that after all it has said
        return b""
