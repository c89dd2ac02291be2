"""Code that runs in one thread and can be interrupted from another.

CPython can raise an exception in any thread, between two of its bytecodes (``PyThreadState_SetAsyncExc``).
It says nothing about where the thread is by then: an exception that is meant for some code may be raised in
what the thread does next. So both sides take a lock, and the thread that ran the code never gives it back:
from then on nobody can interrupt it, and what had been asked for before is caught.

The lock is reentrant, because an interruption may hit the thread while it takes the lock, and it has to take
it again. Nothing here makes the other side wait.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Guard"]

T = TypeVar("T")


class Guard:
    """Runs a function, once, that other threads may interrupt by raising KeyboardInterrupt in it.

    Code that waits in a call of the system, or of a library in C, is interrupted when the call returns.
    """

    def __init__(self) -> None:
        self._over = threading.RLock()
        self._thread: int | None = None
        self._asked = False

    def run(self, function: Callable[[], T]) -> T:
        """Call the function; after this has returned, or raised, nothing more is raised in this thread."""
        self._thread = threading.get_ident()
        try:
            try:
                if self._asked:
                    raise KeyboardInterrupt
                return function()
            finally:
                self._end()
        except KeyboardInterrupt:
            self._end()  # it may have come between the function and the first call of this
            raise

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the function, or keep it from being called; do nothing if it is over.

        The function may catch the exception and go on, like any code.
        """
        self._asked = True
        if self._over.acquire(blocking=False):
            try:
                if self._thread is not None:
                    _raise_in(self._thread, KeyboardInterrupt)
            finally:
                self._over.release()

    def _end(self) -> None:
        while self._thread is not None:
            try:
                self._over.acquire()
                self._thread = None
                if self._asked:
                    _take_what_is_left()
            except KeyboardInterrupt:
                continue


def _take_what_is_left() -> None:
    """Raise KeyboardInterrupt; if one was still to be raised in this thread, it is that one.

    A thread has room for one. To take it back would leave CPython before 3.13 looking for it for ever, at
    every turn of every loop of the process; traced functions would not even begin.
    """
    _raise_in(threading.get_ident(), KeyboardInterrupt)
    while True:
        pass


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have a thread raise an exception, as soon as it is at its next bytecode that looks for one."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
