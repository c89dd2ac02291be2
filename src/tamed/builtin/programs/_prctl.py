"""What prctl(2) has for those who keep processes."""

import ctypes
import signal

__all__ = ["become_subreaper", "die_with_parent", "gain_no_privileges"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38  # linux/prctl.h

# Loaded once, in the fork server: loading it takes longer than all that a shim does.
_libc = ctypes.CDLL(None)


def become_subreaper() -> None:
    """Make this process the parent of whatever below it loses its own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; kept by exec, unless that changes the user."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def gain_no_privileges() -> None:
    """Let no program that is executed from now on gain privileges by setuid bits or file capabilities."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, argument: int) -> None:
    _libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0),) * 3)
