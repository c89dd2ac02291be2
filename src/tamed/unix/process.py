"""A process that is held by a pidfd, so that no stranger is ever signalled in its place.

A pid is a number that the kernel gives to somebody else when its process is gone; a pidfd (pidfd_open(2),
Linux 5.3) goes on meaning the same process. What remains is the moment between learning a number and
opening it, and :meth:`ProcessHandle.found_by` closes that.
"""

import os
import select
import signal
from collections.abc import Callable
from typing import Self

from tamed.errors import PermissionRefused, SystemRefused, from_os_error

__all__ = ["ProcessHandle", "end_by_signal"]

_ATTEMPTS = 10


class ProcessHandle:
    """One process, until it is closed; a context manager."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def open(cls, pid: int) -> Self | None:
        """Take hold of whatever process has this pid now; None if there is none.

        Raises SystemRefused if the kernel has no pidfds or no descriptor is left.
        """
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        except OSError as error:
            raise from_os_error(f"cannot hold process {pid}", error) from error

    @classmethod
    def found_by(cls, find: Callable[[], int | None]) -> Self | None:
        """Take hold of the process that ``find`` names, and only of that one; None when it names none.

        ``find`` is asked again once the process is held. If it still gives the same pid, the process that
        it means was alive the whole time and had that pid, so it is the one that is held. With the holder
        of a pid file::

            with ProcessHandle.found_by(lambda: holder(path)) as process: ...

        Raises SystemRefused if what ``find`` says cannot be held.
        """
        for _ in range(_ATTEMPTS):
            pid = find()
            if pid is None:
                return None
            handle = cls.open(pid)
            if handle is None:
                continue
            if find() == pid:
                return handle
            handle.close()
        raise SystemRefused("cannot find the process", "it was another one at each try")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the pidfd. It is readable, for ``poll(2)``, once the process has ended."""
        return self._descriptor

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; tell whether the process was there to get it. A zombie counts as there.

        Raises PermissionRefused if this user may not signal it.
        """
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            raise PermissionRefused(
                f"cannot send {number.name} to process {self.pid}",
                error.strerror or "",
                "do it as its user, or as root",
            ) from error
        return True

    def wait_gone(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds (None: for ever) until it has ended; tell whether it has.

        A process that ended and was not yet reaped by its parent has ended.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(timeout, 0.0) * 1000))

    def close(self) -> None:
        """Let go of the process, which goes on as it is. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def end_by_signal(number: int) -> int:
    """End this process by a signal, so that whoever waits for it sees the truth.

    It returns only in a process that no signal of its own ends, as pid 1: with the status to exit with then,
    which is what a shell says of a process that a signal ended.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number
