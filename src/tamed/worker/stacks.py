"""The stacks of all threads and asyncio tasks of this process, as data; `tamed.supervisor.reports` reads it.

The event loop answers the request, between two of its callbacks. A worker whose loop is blocked cannot: then
the supervisor sends a signal, and `faulthandler` prints the stacks of the threads.
"""

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tamed._os.secrets import SECRETS
from tamed.ipc.message import Message

__all__ = ["stacks_of_process"]

_MOST_THREADS = 100
_MOST_TASKS = 2000  # examined tasks; others are only counted
_MOST_STACKS = 100  # different ones
_DEEPEST = 40  # frames of a stack
_LONGEST = 300  # characters of a line


def stacks_of_process() -> Message:
    """Return the stacks of the threads, and those of the tasks of the running loop.

    Each stack is a list of lines, the outermost frame first. Tasks with the same stack are counted together.
    """
    tasks = list(asyncio.all_tasks())
    stacks: dict[tuple[str, ...], tuple[str, int]] = {}
    for task in tasks[:_MOST_TASKS]:
        lines = tuple(_lines_of_task(task))
        name, count = stacks.get(lines, (task.get_name(), 0))
        if count or len(stacks) < _MOST_STACKS:
            stacks[lines] = name, count + 1
    return {
        "threads": list(_threads())[:_MOST_THREADS],
        "tasks": [
            {"name": _shown(name), "count": count, "lines": list(lines)}
            for lines, (name, count) in stacks.items()
        ],
        "count": len(tasks),
    }


def _threads() -> Iterator[Message]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        lines = ["runs the event loop"] if ident == threading.get_ident() else _lines_of_frame(frame)
        yield {"name": _shown(names.get(ident, f"thread {ident}")), "lines": lines}


def _shown(name: str) -> str:
    """Return the name that the application gave to a thread or a task, for people."""
    return SECRETS.hidden(name)[:_LONGEST]


def _lines_of_frame(frame: FrameType | None) -> list[str]:
    lines: list[str] = []
    while frame is not None and len(lines) < _DEEPEST:
        lines.append(_line(frame))
        frame = frame.f_back
    return lines[::-1]


def _lines_of_task(task: "asyncio.Task[Any]") -> Iterator[str]:
    """Yield the frames of a task: of its coroutine, of the awaited one, and so on."""
    if task is asyncio.current_task():
        yield "running"
        return
    awaited: Any = task.get_coro()
    for _ in range(_DEEPEST):
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        yield _line(frame)
        # `run_hook` steps the hooks of services itself, so they are not in the chain of awaited coroutines.
        hook = frame.f_locals.get("coroutine") if frame.f_code.co_name == "_resume" else None
        awaited = hook or _attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    if awaited is not None:
        yield _waits_for(awaited)


def _waits_for(awaited: Any) -> str:
    kind = type(awaited)
    if kind.__name__ == "FutureIter":  # the iterator of an awaited future, which does not reveal its owner
        return "waits for a future"
    return f"waits for {kind.__module__}.{kind.__qualname__}"[:_LONGEST]


def _attribute(coroutine: Any, *names: str) -> Any:
    """Return the first of these attributes that the coroutine has."""
    return next((getattr(coroutine, name) for name in names if hasattr(coroutine, name)), None)


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'[:_LONGEST]
