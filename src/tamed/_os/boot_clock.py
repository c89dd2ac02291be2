"""CLOCK_BOOTTIME and its timers: the time that also passes while the machine is suspended.

A timer that expires during a suspension fires before any process runs again.
"""

import os
import signal
import struct
import time
from typing import Final

from tamed._os.syscalls import call

__all__ = ["BootAlarm", "KillTimer", "boot_time"]

_CLOCK: Final = time.CLOCK_BOOTTIME
_SIGEV_SIGNAL, _TIMER_ABSTIME, _TFD_TIMER_ABSTIME = 0, 1, 1
_NEVER: Final = bytes(4 * struct.calcsize("l"))  # struct itimerspec


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
