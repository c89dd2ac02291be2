"""The first process of a container: pid 1 of a pid namespace, which the kernel treats specially.

- It becomes the parent of each process that has lost its own, and must reap it (wait(2)), or a zombie stays.
- The kernel sends it no signal with the default action (pid_namespaces(7)): without a handler it does not
even
  end by SIGTERM.

A program that waits for its own children cannot reap all others. So it runs in a child of pid 1, in which
everything is as usual; pid 1 does these two things for it, and nothing else.
"""

import contextlib
import os
import signal
from typing import Final

from tamed._os.descriptors import close_all

__all__ = ["leave_first_process"]

_NOT_PASSED: Final = (signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_MEANT_FOR: Final = ("LISTEN_PID", "WATCHDOG_PID")


def leave_first_process() -> None:
    """If this is pid 1, return in a child. Pid 1 forwards its signals, and ends with the child's status.

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
        while (ended := _reaped()) is not None:
            pid, code = ended
            if pid == child:
                return code if code >= 0 else 128 - code


def _reaped() -> tuple[int, int] | None:
    """Reap a child that has ended; return its pid and exit code, None if there is none."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None
