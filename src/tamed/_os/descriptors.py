"""Descriptors: the three that everybody expects, those that a process gets, and those it must not have."""

import contextlib
import fcntl
import os
import socket
import stat
from array import array
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tamed.errors import SystemRefused

__all__ = [
    "close_all",
    "close_inherited",
    "close_on_exec",
    "fill_standard_descriptors",
    "hollow",
    "place_descriptors",
    "read_nothing",
    "receive_descriptors",
    "silence_standard_descriptors",
]

_STANDARD = (0, 1, 2)


def fill_standard_descriptors() -> None:
    """Open ``/dev/null`` on those of 0, 1 and 2 that are closed.

    Else the next file that is opened becomes somebody's standard output. Call it before anything else is
    opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) in _STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def silence_standard_descriptors() -> None:
    """Put ``/dev/null`` on 0, 1 and 2, which stay open on exec."""
    fill_standard_descriptors()
    for descriptor in _STANDARD:
        os.set_inheritable(descriptor, True)
    hollow(_STANDARD)


def hollow(descriptors: Iterable[int]) -> None:
    """Put ``/dev/null`` in the place of those descriptors that are open, each as inheritable as it was.

    They are closed where that cannot be opened.
    """
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            inheritable = os.get_inheritable(descriptor)
            try:
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            except OSError:  # there may be no descriptor left: this one makes room
                os.close(descriptor)
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if null == descriptor:
                os.set_inheritable(null, inheritable)
                continue
            os.dup2(null, descriptor, inheritable)
            os.close(null)


def read_nothing() -> None:
    """Have descriptors 0 to 2 give this process nothing to read.

    0 becomes ``/dev/null``, unless it is a socket, which somebody may listen on. A terminal on 1 or 2, which
    is open for both, is opened anew for writing: whoever gets hold of the descriptor cannot read what is
    typed there.
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
    """Close the descriptors that came from the parent, except 0 to 2 and those in ``keep``.

    With ``but_sockets``, sockets stay too that are not connected: somebody may listen on them.

    They are known by being open across exec. Python opens everything otherwise (PEP 446), so nothing is
    closed under an object that would later close the number again, when it is somebody else's. Those that
    Python opened are closed by the exec that follows.
    """
    for descriptor in _open_ones():
        if descriptor <= 2 or descriptor in keep or not _is_inheritable(descriptor):
            continue
        if not (but_sockets and _may_listen(descriptor)):
            os.close(descriptor)


def close_on_exec() -> list[int]:
    """Have all descriptors except 0 to 2 closed on exec, wherever they came from, if there is ``/proc``.

    Returns those that were not, which came from whoever executed this program.
    """
    inherited: list[int] = []
    with contextlib.suppress(SystemRefused):
        inherited += [each for each in _open_ones() if each > 2 and _is_inheritable(each)]
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    return inherited


def close_all(keep: Collection[int]) -> None:
    """Close every descriptor above 2 that is not in ``keep``, in a forked child that ends with ``os._exit``.

    It needs no ``/proc``, which a chroot may not have.
    """
    low = 3
    for kept in sorted(number for number in keep if number > 2):
        os.closerange(low, kept)
        low = kept + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def place_descriptors(wanted: Mapping[int, int]) -> None:
    """Make each number a copy of a descriptor, which exec leaves open; the two sets may overlap."""
    beyond = max(wanted) + 1
    # Copies above all the numbers, so that none is overwritten before it is used; they are closed on exec.
    copies = {number: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, beyond) for number, source in wanted.items()}
    for number, copy in copies.items():
        os.dup2(copy, number)


def receive_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive at most ``size`` bytes with at most ``most`` descriptors, which no program executed gets.

    Not by `socket.recv_fds`, which takes flags and does not heed them: between the receipt and a second call
    that marks the descriptors, another thread could start a program.
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
        "cannot tell which descriptors are open", "there is neither /proc nor /dev/fd", "mount /proc"
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
        return False  # the one that read the list
