"""CLOCK_BOOTTIME and its timers: the time that also passes while the machine is suspended.

A timer that has expired meanwhile fires before any process runs again.
"""

import os
import signal
import time
from ctypes import POINTER, Structure, byref, c_int, c_long, c_void_p
from typing import Final

from tamed._os.syscalls import call

__all__ = ["BootAlarm", "KillTimer", "boot_time"]

_CLOCK: Final = time.CLOCK_BOOTTIME
_SIGEV_SIGNAL, _TIMER_ABSTIME, _TFD_TIMER_ABSTIME = 0, 1, 1


def boot_time() -> float:
    """Return the seconds since the machine was started, those of its suspension included."""
    return time.clock_gettime(_CLOCK)


class _Event(Structure):
    """``struct sigevent``: 64 bytes, of which only the beginning is for a signal."""

    _fields_ = (("value", c_void_p), ("signo", c_int), ("notify", c_int), ("rest", c_int * 12))


class _Setting(Structure):
    """``struct itimerspec``."""

    _fields_ = (
        ("interval", c_long),
        ("interval_nanoseconds", c_long),
        ("seconds", c_long),
        ("nanoseconds", c_long),
    )


def _setting(when: float) -> _Setting:
    seconds, rest = divmod(max(when, 1e-9), 1)  # zero would mean never
    return _Setting(0, 0, int(seconds), int(rest * 1e9))


class KillTimer:
    """A timer of the kernel that kills this process, whatever it does then: timer_create(2).

    It kills a process that is blocked or stopped, too, and needs nobody who watches. A forked child does not
    have it. Raises OSError if the kernel refuses one.
    """

    def __init__(self) -> None:
        self._timer = c_void_p()
        event = _Event(signo=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        call("timer_create", c_int(_CLOCK), byref(event), byref(self._timer))

    def set(self, when: float) -> None:
        """Set the time, in seconds of `boot_time`; one that has passed kills at once."""
        setting = byref(_setting(when))
        call("timer_settime", self._timer, c_int(_TIMER_ABSTIME), setting, POINTER(_Setting)())

    def close(self) -> None:
        """Kill nobody."""
        call("timer_delete", self._timer)


class BootAlarm:
    """A descriptor that is readable from a time on: timerfd_create(2). Raises OSError without one."""

    def __init__(self) -> None:
        self._descriptor = call("timerfd_create", c_int(_CLOCK), c_int(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def set(self, when: float | None) -> None:
        """Set the time, in seconds of `boot_time`; None for never. It is no longer readable until then."""
        setting = _Setting() if when is None else _setting(when)
        descriptor, flags = c_int(self._descriptor), c_int(_TFD_TIMER_ABSTIME)
        call("timerfd_settime", descriptor, flags, byref(setting), POINTER(_Setting)())

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
