"""A handle of a process, by a pidfd, so that no other process is ever signalled in its place; and pid 1.

The kernel gives a pid to another process when its process is gone; a pidfd (pidfd_open(2), Linux 5.3) always
refers to the same process. A race remains between reading a pid and opening it;
:meth:`ProcessHandle.found_by` prevents it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from tamed.errors import PermissionRefused, SystemRefused, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, Self

__all__ = ["ProcessHandle", "end_by_signal", "ignore_to_the_end", "leave_first_process"]

_ATTEMPTS = 10
_NOT_PASSED: Final = (signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_MEANT_FOR: Final = ("LISTEN_PID", "WATCHDOG_PID")


class ProcessHandle:
    """One process, until it is closed; a context manager."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def open(cls, pid: int) -> Self | None:
        """Open the process that has this pid now; None if there is none.

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
        """Open the process whose pid ``find`` returns, and no other one; None if ``find`` returns None.

        ``find`` is called again after the process is opened. If it returns the same pid again, its process
        was alive the whole time and had that pid, so it is the one that was opened. For the holder of a pid
        file::

            with ProcessHandle.found_by(lambda: holder(path)) as process: ...

        Raises SystemRefused if the process cannot be opened.
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
        raise SystemRefused("cannot find the process", "it was a different process at every attempt")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the pidfd. It is readable, for ``poll(2)``, once the process has ended."""
        return self._descriptor

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; return whether the process existed. A zombie exists.

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
                "run the command as its user, or as root",
            ) from error
        return True

    def wait_gone(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds (None: no deadline) until it has ended; return whether it has.

        A process that its parent has not reaped yet has ended.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(timeout, 0.0) * 1000))

    def close(self) -> None:
        """Close the handle; the process is not affected. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def ignore_to_the_end(numbers: Iterable[int]) -> None:
    """Ignore signals, because this process ends.

    At its end, the interpreter restores the default action of each signal that has a handler: a late signal
    would change the exit status.
    """
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def end_by_signal(number: int) -> int:
    """End this process by a signal, so that its parent sees the true wait status.

    It returns only in a process that its own signals do not end, such as pid 1: then with the status to exit
    with, which is the one that shells use for a process ended by this signal.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number


def leave_first_process() -> None:
    """If this is pid 1, return in a child. Pid 1 forwards its signals, and ends with the child's status.

    The kernel treats pid 1 of a pid namespace (pid_namespaces(7)) specially. It becomes the parent of each
    process that has lost its own, and must reap it, or a zombie stays. It gets no signal with the default
    action: without a handler it does not even end by SIGTERM. A program that waits for its own children
    cannot reap all others, so it runs in a child, in which everything is as usual.

    If the child is ended by a signal, the exit status is 128 and the signal's number, as in a shell. Call it
    before there are threads.
    """
    if os.getpid() != 1:
        return
    # Pid 1 receives them with sigwait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        status = os.EX_SOFTWARE
        try:
            from tamed._os.descriptors import close_all  # lazy import: few programs are pid 1

            close_all([])
            status = _wait(child)
        finally:
            os._exit(status)
    for name in _MEANT_FOR:
        if os.environ.get(name) == "1":
            os.environ[name] = str(os.getpid())
    # A separate group: Ctrl-C goes to the foreground group, and pid 1 would forward it a second time.
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):  # no terminal, or another session's
        os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(child: int) -> int:
    """Reap children and forward signals until this child ends; return its exit status."""
    while True:
        number = signal.sigwait(signal.valid_signals())
        if number not in _NOT_PASSED:
            os.kill(child, number)  # it exists until it is reaped
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                return code if code >= 0 else 128 - code
