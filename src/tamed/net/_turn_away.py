"""Turning clients away from a listening socket that is about to close.

A server that stops takes those who wait in the kernel's queue, looks once more, and closes the socket. Who
connects between the look and the close is reset by that: connected, as far as it knows, and never served.
So the kernel is first told to drop the packets that ask for a new connection. Their senders ask again a
second later, and are refused then, or find whoever listens by that time.

The means is a filter of the socket (SO_ATTACH_FILTER, socket(7)), which needs no privilege. It holds for the
socket itself, in every process that has it. For unix sockets nothing is done.
"""

import socket
import struct
from array import array
from typing import Final

__all__ = ["turn_away"]

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; mips, parisc and sparc have the same number
_FLAGS: Final = (
    13  # where they are in a TCP header, at which the filter of a TCP socket begins (RFC 9293, 3.1)
)
_SYN: Final = 0x02
_ALL: Final = 0xFFFFFFFF

# Classic BPF, linux/filter.h: code, how far to jump if true and if false, operand.
_PROGRAM: Final = (
    (0x30, 0, 0, _FLAGS),  # load the byte
    (0x45, 0, 1, _SYN),  # is the bit set in it?
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, _ALL),  # keep it whole
)


def turn_away(sock: socket.socket) -> None:
    """Let no more clients into the queue of a listening socket; those in it stay, and are to be accepted."""
    if sock.family == socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        return
    code = array("B", b"".join(struct.pack("HBBI", *each) for each in _PROGRAM))
    address, _ = code.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_PROGRAM), address))
    except OSError:  # a kernel without it, or a sandbox that forbids it
        return
