"""What an application has left, and its process waits for: threads, and tasks of the event loop."""

import asyncio
import sys
import threading
import time
from typing import Final

from tamed._os.text import shown

__all__ = ["PATIENCE", "name_left_over", "print_now"]

PATIENCE: Final = 1.0
"""Seconds after which a process that does not end reports what it waits for."""


def name_left_over(loop: asyncio.AbstractEventLoop | None, end: str) -> None:
    """Print what this process waits for, in a daemon thread of it; ``end`` is when it ends otherwise."""
    time.sleep(PATIENCE)
    if rest := ", ".join(_left_over(loop)):
        print_now(f"the process waits for {rest}: end each in the stop of its service; {end}")


def _left_over(loop: asyncio.AbstractEventLoop | None) -> list[str]:
    threads = (each for each in threading.enumerate() if not each.daemon)
    tasks = asyncio.all_tasks(loop) if loop is not None and loop.is_running() else set()
    left = [f"the thread {each.name}" for each in threads if each is not threading.main_thread()]
    left += sorted(f"the task {getattr(each.get_coro(), '__qualname__', each.get_name())}" for each in tasks)
    return [shown(each) for each in left if "shutdown" not in each]  # asyncio waits in some of its own


def print_now(text: str) -> None:
    """Print a line on standard error: the log may have been closed."""
    if sys.stderr is not None:
        sys.stderr.write(f"tamed: {text}\n")
        sys.stderr.flush()
