"""Descriptors: the three that everybody expects, and those that came from whoever started us."""

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from tamed.errors import SystemRefused

__all__ = [
    "close_all",
    "close_inherited",
    "close_on_exec",
    "fill_standard_descriptors",
    "read_nothing",
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
    """Put ``/dev/null`` on 0, 1 and 2."""
    fill_standard_descriptors()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _STANDARD:
        os.dup2(null, descriptor)
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
