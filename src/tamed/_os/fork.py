"""Releasing Tamed's resources in a child that the application forks.

Such a child (`os.fork`, `multiprocessing`, `pty.fork`) is a copy of the whole process, with the resources of
Tamed: signal handlers for an event loop that does not run in the child, the wake-up descriptor of that loop,
the channel to the supervisor, pipes of the log, listening sockets. So SIGTERM would not end the child, and it
would keep a port bound after the daemon has stopped.

This module prevents that. An object with such a resource registers itself with `own`, and a process that runs
an application calls `guard_forks`. Then a child begins with default signal handlers, and `disown` of each
registered object is called in it. The child keeps the files that the application has opened, connections
included, as after any fork.

A descriptor is not closed in the child but replaced with ``/dev/null`` (`replace_with_null` of
``descriptors.py``): the child still has the objects that use the number, and they would close it again when
it is another file.
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

__all__ = [
    "Owned",
    "default_signals",
    "fork_own",
    "guard_forks",
    "own",
    "own_nothing",
    "require_single_thread",
    "threads",
]

_TASKS = Path("/proc/self/task")
_ENDING = 2.0  # seconds that a thread may take to end
_PAUSE = 0.001


class Owned(Protocol):
    """An object with resources that a forked child must not use."""

    def disown(self) -> None:
        """In a forked child: release the parent's resources, without an effect on the parent."""


def own(thing: Owned) -> None:
    """Call ``disown`` of an object in each forked child, as long as the object exists."""
    _guard.owned.add(thing)


def guard_forks() -> None:
    """Handle every child that this process forks from now on. Idempotent."""
    _guard.begin()


def fork_own() -> int:
    """Fork a process of Tamed: it keeps the registered resources, and has default signal handlers."""
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


def own_nothing() -> None:
    """Forget what the parent has registered, as this process has closed its descriptors."""
    _guard.owned.clear()


def default_signals(*, ignored: bool = False) -> None:
    """Restore the default handler of each signal, as in a new Python program.

    With ``ignored``, also of ignored signals: an executed program would inherit that they are ignored.
    """
    with suppress(ValueError):  # in a subinterpreter, which has no handlers
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) or (ignored and handler == signal.SIG_IGN):
                is_interrupt = number == signal.SIGINT and not ignored
                signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def threads(tasks: Path = _TASKS) -> int:
    """Return the number of threads of this process; without ``/proc`` only those that Python has started.

    ``tasks`` is the directory in which the kernel lists them.
    """
    try:
        return sum(1 for _ in tasks.iterdir())
    except OSError:
        threading = sys.modules.get("threading")
        count: int = threading.active_count() if threading else 1
        return count


def require_single_thread(what: str) -> None:
    """Raise SystemRefused, beginning with ``what``, if this process has more than one thread.

    It waits for a thread that is ending: `Thread.join` returns some time before the thread is gone in the
    kernel. A fork copies only the calling thread and leaves the locks of others locked; capabilities and
    ``no_new_privs`` belong to the thread that sets them (capabilities(7), prctl(2)).
    """
    deadline = time.monotonic() + _ENDING
    while (count := threads()) > 1 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    if count > 1:
        raise SystemRefused(what, f"this process has {count} threads", "do it before any thread is started")


class _Guard:
    """The registered objects, and the hooks for forks."""

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
        """Block signals: the parent's handlers would run in a child that has not reset them."""
        self._masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(get_ident()))

    def _in_child(self) -> None:
        mask = self._masks[get_ident()]
        self._masks.clear()  # other threads do not exist in the child
        try:
            if not self.is_own_fork:
                default_signals()
                for thing in tuple(self.owned):
                    thing.disown()
                self.owned.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_guard = _Guard()
