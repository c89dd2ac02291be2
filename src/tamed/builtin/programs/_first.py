"""Waiting for whichever of several things comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["first"]


async def first(*coroutines: Coroutine[Any, Any, Any], seconds: float | None = None) -> int | None:
    """Run coroutines until one is done, and return which; None if none is within these seconds.

    The others are cancelled. What the one has raised is raised here. If two are done, the earlier in the
    order counts.
    """
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for number, task in enumerate(tasks):
            if task.done():
                task.result()
                return number
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
