"""Descriptors: the three standard ones, those to pass to a process, and those that it must not have."""

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
from array import array
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from tamed.errors import SystemRefused

__all__ = [
    "close_all",
    "close_inherited",
    "close_on_exec",
    "drop_new_connections",
    "fill_standard_descriptors",
    "has_lost_terminal",
    "place_descriptors",
    "read_nothing",
    "receive_descriptors",
    "replace_with_null",
    "reset_at_close",
    "silence_standard_descriptors",
]

_STANDARD = (0, 1, 2)

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; mips, parisc and sparc have the same number
_TCP_FLAGS: Final = 13  # their offset in the TCP header, where the filter of a socket begins (RFC 9293, 3.1)
_SYN: Final = 0x02
_ALL: Final = 0xFFFFFFFF

# Classic BPF, linux/filter.h: code, jump if true, jump if false, operand.
_DROP_SYN: Final = (
    (0x30, 0, 0, _TCP_FLAGS),  # load the byte
    (0x45, 0, 1, _SYN),  # is the bit set in it?
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, _ALL),  # keep it whole
)


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` on those of 0, 1 and 2 that are closed.

    Otherwise the next file that is opened would become standard output. Call it before any file is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) in _STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def has_lost_terminal() -> bool:
    """Return whether one of 0, 1 and 2 is a terminal that hung up: a closed window, a lost connection."""
    poll = select.poll()
    for descriptor in _STANDARD:
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # poll reports a hang-up for broken pipes, too
            poll.register(descriptor, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def silence_standard_descriptors() -> None:
    """Put ``/dev/null`` on 0, 1 and 2, which stay open on exec."""
    fill_standard_descriptors()
    for descriptor in _STANDARD:
        os.set_inheritable(descriptor, True)
    replace_with_null(_STANDARD)


def replace_with_null(descriptors: Iterable[int]) -> None:
    """Replace those of these descriptors that are open with ``/dev/null``, and keep their inheritability.

    If that cannot be opened, they are closed.
    """
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            inheritable = os.get_inheritable(descriptor)
            try:
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # maybe no descriptor is free: closing this one frees one
                os.close(descriptor)
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if null == descriptor:
                os.set_inheritable(null, inheritable)
                continue
            os.dup2(null, descriptor, inheritable)
            os.close(null)


def read_nothing() -> None:
    """Make descriptors 0 to 2 useless for reading.

    0 becomes ``/dev/null``, unless it is a socket, which may be one to listen on. A terminal on 1 or 2, which
    is open for reading and writing, is opened again for writing only: code that gets the descriptor cannot
    read what is typed there.
    """
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            with contextlib.suppress(OSError):  # without /proc
                writing = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
                os.dup2(writing, descriptor)
                os.close(writing)


def close_inherited(keep: Collection[int], *, but_sockets: bool = False) -> None:
    """Close the descriptors that the parent left open, except 0 to 2 and those in ``keep``.

    With ``but_sockets``, unconnected sockets are kept too: a server may listen on them.

    Inherited descriptors are those without close-on-exec. Python sets that for all files that it opens (PEP
    446), so no object loses its descriptor here, and closes the number later when it is another file. An
    exec closes the descriptors that Python opened.
    """
    for descriptor in _open_ones():
        if descriptor <= 2 or descriptor in keep or not _is_inheritable(descriptor):
            continue
        if not (but_sockets and _may_listen(descriptor)):
            os.close(descriptor)


def close_on_exec() -> list[int]:
    """Set close-on-exec for all descriptors except 0 to 2, if there is ``/proc``.

    Returns those that did not have it, which this program has inherited.
    """
    inherited: list[int] = []
    with contextlib.suppress(SystemRefused):
        inherited += [each for each in _open_ones() if each > 2 and _is_inheritable(each)]
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    return inherited


def close_all(keep: Collection[int]) -> None:
    """Close every descriptor above 2 that is not in ``keep``, in a forked child that ends with ``os._exit``.

    It needs no ``/proc``, which may be missing in a chroot.
    """
    low = 3
    for kept in sorted(number for number in keep if number > 2):
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def place_descriptors(wanted: Mapping[int, int]) -> None:
    """Copy a descriptor to each number, inheritable; the two sets may overlap."""
    beyond = max(wanted) + 1
    # First copies above all the numbers, so that none is overwritten before it is used; exec closes them.
    copies = {number: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, beyond) for number, source in wanted.items()}
    for number, copy in copies.items():
        os.dup2(copy, number)


def reset_at_close(sock: socket.socket) -> None:
    """Make the close of a socket send a reset to the peer (SO_LINGER, socket(7)). Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drop_new_connections(sock: socket.socket) -> None:
    """Keep new clients out of the queue of a listening socket; accept those that are in it.

    A client that connects between the server's last check of its queue and the close of its socket gets a
    reset, although the connection was established. So the kernel first drops the packets of new connections
    (SYN). Their senders retry a second later, and are refused then, or reach the next server on that port.
    The means is a socket filter (SO_ATTACH_FILTER, socket(7)), which needs no privilege. It applies to the
    socket itself, in every process that has it.
    """
    if sock.family == socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        return
    code = array("B", b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN))
    address, _ = code.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), address))
    except OSError:  # a kernel without it, or a sandbox that forbids it
        return


def receive_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive at most ``size`` bytes with at most ``most`` descriptors, which are closed on exec.

    Not with `socket.recv_fds`, which ignores its flags: between it and a second call that sets close-on-exec,
    another thread could execute a program.
    """
    numbers = array("i")
    space = socket.CMSG_LEN(most * numbers.itemsize)
    data, ancillary, _, _ = sock.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return data, list(numbers)


def _open_ones() -> list[int]:
    for listing in (Path("/proc/self/fd"), Path("/dev/fd")):
        try:
            return [int(entry.name) for entry in listing.iterdir()]
        except OSError:
            continue
    raise SystemRefused(
        "cannot list the open descriptors", "there is neither /proc nor /dev/fd", "mount /proc"
    )


def _may_listen(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            sock.getpeername()
        except OSError:
            return True
        return False


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # the descriptor by which the list was read
