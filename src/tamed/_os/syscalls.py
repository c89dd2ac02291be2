"""System calls that are not in the standard library, among them timers; the first one loads ``ctypes``."""

import errno
import os
import signal
import struct
import sys
import time

__all__ = [
    "BootAlarm",
    "KillTimer",
    "be_subreaper",
    "boot_time",
    "call",
    "die_with_parent",
    "forbid_new_privileges",
    "leave_keyring",
    "prctl",
]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38  # linux/prctl.h

# keyctl(2), for which the C library has no function: its number on each machine, for programs of 64 bits.
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

# This time also passes while the machine is suspended, and its timers fire before any process runs again.
_CLOCK = time.CLOCK_BOOTTIME
_SIGEV_SIGNAL, _TIMER_ABSTIME, _TFD_TIMER_ABSTIME = 0, 1, 1
_NEVER = bytes(4 * struct.calcsize("l"))  # struct itimerspec


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library and return its result. Raises ``OSError`` for a result below 0."""
    import ctypes  # not at the top: it takes a megabyte

    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, *arguments: int) -> int:
    """Call the C library's ``prctl`` with up to four arguments; see `call`."""
    from ctypes import c_ulong

    filled = (*arguments, 0, 0, 0, 0)[:4]  # the kernel requires 0 for unused ones
    return call("prctl", option, *map(c_ulong, filled))


def be_subreaper(yes: bool = True) -> None:
    """Adopt the orphans among our descendants, or stop doing so."""
    prctl(_PR_SET_CHILD_SUBREAPER, yes)


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends; exec keeps that, unless it changes the user."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def forbid_new_privileges() -> None:
    """Prevent executed programs from gaining privileges by setuid bits or file capabilities, for good."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def leave_keyring() -> None:
    """Create a new session keyring (session-keyring(7)), in a process that will become another user.

    Child processes inherit the keyring of a login, and can use its keys even after a change of user. Call
    this before the change, because the new user may have no quota left for a keyring. If the system has no
    keyrings, or forbids them (a filter of a container), it does nothing. May raise ``OSError``.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        return
    try:
        call("syscall", number, _JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in _NO_KEYRINGS:
            raise


def boot_time() -> float:
    """Return the seconds since the machine was started, those of its suspension included."""
    return time.clock_gettime(_CLOCK)


def _setting(when: float) -> bytes:
    """Return a ``struct itimerspec`` for one time."""
    seconds, rest = divmod(max(when, 1e-9), 1)  # zero would mean never
    return struct.pack("4l", 0, 0, int(seconds), int(rest * 1e9))


class KillTimer:
    """A kernel timer that kills this process with SIGKILL: timer_create(2).

    It also kills a blocked or stopped process, and needs no other process. A forked child does not inherit
    it. Raises OSError if the kernel refuses one.
    """

    def __init__(self) -> None:
        from ctypes import byref, c_void_p  # lazy import: the supervisor does not call this

        self._timer = c_void_p()
        event = struct.pack("Pii48x", 0, signal.SIGKILL, _SIGEV_SIGNAL)  # struct sigevent
        call("timer_create", _CLOCK, event, byref(self._timer))

    def set(self, when: float) -> None:
        """Set the time, in seconds of `boot_time`; a past time kills at once."""
        call("timer_settime", self._timer, _TIMER_ABSTIME, _setting(when), None)

    def close(self) -> None:
        """Delete the timer."""
        call("timer_delete", self._timer)


class BootAlarm:
    """A descriptor that becomes readable at a given time: timerfd_create(2). Raises OSError without one."""

    def __init__(self) -> None:
        self._descriptor = call("timerfd_create", _CLOCK, os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def set(self, when: float | None) -> None:
        """Set the time, in seconds of `boot_time`; None for never. It is not readable until then."""
        setting = _NEVER if when is None else _setting(when)
        call("timerfd_settime", self._descriptor, _TFD_TIMER_ABSTIME, setting, None)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
