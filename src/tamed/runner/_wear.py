"""Wear: a worker that has served long enough asks to be replaced.

That keeps what an application leaks within bounds. Limits are spread by a tenth in either direction, so that
workers which started together do not go together.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tamed.config.settings import Daemon

__all__ = ["wearing"]

_LOOK = 0.5  # seconds
_SPREAD = 0.1


@contextmanager
def wearing(daemon: Daemon, accepted: Callable[[], int], ask: Callable[[str], object]) -> Iterator[None]:
    """Inside the ``with``, ask to be replaced, with the reason, while one of the limits is reached.

    ``accepted`` tells how many connections there were.
    """
    if daemon.max_connections_per_worker is None and daemon.max_worker_age is None:
        yield
        return
    task = asyncio.get_running_loop().create_task(_look(daemon, accepted, ask))
    try:
        yield
    finally:
        task.cancel()


async def _look(daemon: Daemon, accepted: Callable[[], int], ask: Callable[[str], object]) -> None:
    import random  # not above: it loads a hash library, and most workers have no limits

    spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - nobody gains by guessing it
    most = math.inf if daemon.max_connections_per_worker is None else daemon.max_connections_per_worker
    oldest = math.inf if daemon.max_worker_age is None else daemon.max_worker_age
    begun = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK)
        age, count = time.monotonic() - begun, accepted()
        if age >= oldest * spread:
            ask(f"is {age:.0f} s old")
        elif count >= most * spread:
            ask(f"has served {count} connections")
