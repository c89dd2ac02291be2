"""What a forked child must not have of its parent's.

A child that the application forks (`os.fork`, `multiprocessing`, `pty.fork`) is a copy of the whole process,
and has what is Tamed's in it as well: signal handlers that only note the signal for an event loop which does
not run in the child, the wake-up descriptor on which that loop would hear of it, the channel to the
supervisor, pipes of the log, sockets that listen. So SIGTERM would not end such a child, and it would keep a
port bound after the daemon has stopped.

This is the one place that sees to it. Whatever is not for a child says so with `own`, and a process that runs
code of others calls `guard_forks`. A child then begins with default signal handlers, and each thing that is
owned has let go. What the application opened by itself, connections included, is the child's too, as after
any fork.

A descriptor is not closed in the child but replaced by ``/dev/null`` (`hollow`): the child still has the
objects that use the number, and would close it again when it is somebody else's.
"""

import errno
import os
import signal
import socket
import sys
from _thread import get_ident
from array import array
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

__all__ = [
    "Owned",
    "default_signals",
    "fork_own",
    "guard_forks",
    "hollow",
    "leave_keyring",
    "own",
    "receive_descriptors",
]

# keyctl(2), for which the C library has no function: its number by the machine, for programs of 64 bits.
_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "loongarch64": 219,
    "ppc64le": 271,
    "riscv64": 219,
    "s390x": 280,
}
_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_NO_KEYRINGS = (errno.ENOSYS, errno.EPERM, errno.EACCES)


class Owned(Protocol):
    """Something that is not for a forked child."""

    def disown(self) -> None:
        """Let go, in a child, of what is the parent's, and leave it to the parent as it is."""


def own(thing: Owned) -> None:
    """Have a forked child let go of a thing, as long as that exists."""
    _guard.owned.add(thing)


def guard_forks() -> None:
    """See to every child that is forked from this process from now on. May be called again."""
    _guard.begin()


def fork_own() -> int:
    """Fork a process of ours: it keeps what is owned, and has the default signal handlers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _guard.is_own_fork = True
    try:
        pid = os.fork()
        if pid == 0:
            default_signals()
    finally:
        _guard.is_own_fork = False
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def default_signals(*, ignored: bool = False) -> None:
    """Let every signal do what it does by default in a Python program.

    With ``ignored``, also those that are ignored: that would stay so in a program that is executed.
    """
    with suppress(ValueError):  # in a subinterpreter, which has no handlers
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) or (ignored and handler == signal.SIG_IGN):
                is_interrupt = number == signal.SIGINT and not ignored
                signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def hollow(descriptors: Iterable[int]) -> None:
    """Put ``/dev/null`` in the place of descriptors; close them where that cannot be opened."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)  # first: there may be no descriptor left
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if null != descriptor:
                os.dup2(null, descriptor, inheritable=False)
                os.close(null)


def leave_keyring() -> None:
    """Begin a session keyring of its own (session-keyring(7)), in a process that becomes another user.

    A login's keyring goes along with whatever it starts, and its keys can be used by whoever has it, of
    whichever user: change of user or not. To be called before the change, since a user may have no room for
    a keyring left. A system that has none, or lets nobody use them (a filter of a container), has none to
    leave. ``OSError`` comes through.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        return
    import ctypes  # not above: it takes a megabyte, and few change the user

    if ctypes.CDLL(None, use_errno=True).syscall(number, _JOIN_SESSION_KEYRING, None) < 0:
        refused = ctypes.get_errno()
        if refused not in _NO_KEYRINGS:
            raise OSError(refused, os.strerror(refused))


class _Guard:
    """What there is to let go of, and the hooks that see to it."""

    def __init__(self) -> None:
        self.owned: WeakSet[Owned] = WeakSet()
        self.is_own_fork = False
        self._has_begun = False
        self._masks: dict[int, set[int | signal.Signals]] = {}  # of threads that fork

    def begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            os.register_at_fork(
                before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
            )

    def _before(self) -> None:
        """Hold signals back: one that came to the child before it knows no handlers would be told to us."""
        self._masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(get_ident()))

    def _in_child(self) -> None:
        mask = self._masks[get_ident()]
        self._masks.clear()  # other threads are not here
        try:
            if not self.is_own_fork:
                default_signals()
                for thing in tuple(self.owned):
                    thing.disown()
                self.owned.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_guard = _Guard()


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
