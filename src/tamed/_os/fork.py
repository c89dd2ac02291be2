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

A descriptor is not closed in the child but replaced by ``/dev/null`` (`hollow` of ``descriptors.py``): the
child still has the objects that use the number, and would close it again when it is somebody else's.
"""

import os
import signal
import sys
import time
from _thread import get_ident
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from tamed.errors import SystemRefused

__all__ = ["Owned", "default_signals", "fork_own", "guard_forks", "own", "require_single_thread", "threads"]

_TASKS = Path("/proc/self/task")
_ENDING = 2.0  # seconds that a thread may take to end
_PAUSE = 0.001


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


def threads(tasks: Path = _TASKS) -> int:
    """Return how many threads this process has: all of them on Linux, elsewhere those that Python knows.

    ``tasks`` is where the kernel lists them.
    """
    try:
        return sum(1 for _ in tasks.iterdir())
    except OSError:
        threading = sys.modules.get("threading")
        count: int = threading.active_count() if threading else 1
        return count


def require_single_thread(what: str) -> None:
    """Raise SystemRefused, beginning with ``what``, if this process has more than one thread.

    One that is ending is waited for: `Thread.join` returns some time before the kernel is done with it. A
    fork takes only the calling thread along and leaves the others' locks locked; capabilities and
    ``no_new_privs`` belong to the thread that sets them (capabilities(7), prctl(2)).
    """
    deadline = time.monotonic() + _ENDING
    while (count := threads()) > 1 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    if count > 1:
        raise SystemRefused(what, f"this process has {count} threads", "do it before anything starts one")


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
