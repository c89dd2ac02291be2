"""Interrupts while modules are loaded, and while a daemon is started.

Python ignores what a handler of signals raises in a callback of its import system, so a Ctrl-C could be lost.
"""

import signal
from types import FrameType

__all__ = ["INTERRUPTS", "deliver_interrupts", "hold_interrupts", "release_interrupts", "remember_interrupts"]

INTERRUPTS = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM})
"""The signals that interrupt a start."""
_seen: list[int] = []


def hold_interrupts() -> None:
    """Block the signals that interrupt a start, until they are released."""
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)


def release_interrupts() -> None:
    """Let the signals that interrupt a start arrive, also those that were held."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


def remember_interrupts() -> None:
    """Raise KeyboardInterrupt at SIGINT, as Python does, and remember it; unless the signal is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def deliver_interrupts() -> None:
    """Raise KeyboardInterrupt if one was lost since `remember_interrupts`, and remember no more."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _seen:
            raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    signal.default_int_handler(number, frame)
