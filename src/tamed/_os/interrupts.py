"""Interrupts while modules are loaded.

Python ignores what a handler of signals raises in a callback of its import system, so a Ctrl-C could be lost.
"""

import signal
from types import FrameType

__all__ = ["deliver_interrupts", "remember_interrupts"]

_seen: list[int] = []


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
