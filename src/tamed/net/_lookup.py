"""Looking up names: the system's functions for that block, as long as a name service does."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Call a function in a thread, which has ended when this returns.

    Not the loop's executor: its threads stay, and would keep the privileges that the process drops after
    its listeners are bound (each thread has its own capabilities and no_new_privs). The thread is a daemon
    thread, so that a program which stops does not wait for a name service that never answers.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # raised in the caller
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="tamed-lookup", daemon=True)
    thread.start()
    try:
        return await asyncio.wrap_future(outcome)
    finally:
        if outcome.done():
            thread.join()
