"""How signals reach a process that runs an application.

A Python signal handler runs between any two bytecodes of the main thread, also while that thread holds a
lock. So a handler here takes no lock and logs nothing: it notes the signal, wakes the event loop, and the
loop does the rest.

An INT while it stops already, and any QUIT, ends the process at once by the signal itself, so that whoever
waits for it sees the truth; that works while the application blocks the loop, because the loop has no part
in it.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]

_Handler = Callable[[int, FrameType | None], Any] | int | None

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, INT, TERM or HUP calls ``stop`` in the loop; INT after it, or QUIT, ends the process.

    ``stop`` gets the signal; it may be replaced at any time. ``kill`` is ``os.kill``, handed in for tests.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[signal.Signals], object],
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self.stop = stop
        self._loop = loop
        self._kill = kill
        self._stopping = False
        self._former: dict[int, _Handler] = {}

    def __enter__(self) -> Self:
        for number in _STOP:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) has it
                self._former[number] = signal.signal(number, self._caught)
        # Ends the process, also while the loop is blocked outside of Python. A shell may have had it ignored.
        self._former[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            if handler is not None:  # it was not set from Python
                signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            if number == signal.SIGINT:
                self._die(number, frame)
            return  # systemd sends TERM to every process of a service, also to one that was told already
        self._stopping = True
        self._loop.call_soon_threadsafe(self._tell, signal.Signals(number))

    def _tell(self, number: signal.Signals) -> None:
        self.stop(number)

    def _die(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._kill(os.getpid(), number)
