"""What a worker reports on request: its application, and its stacks; `tamed.supervisor.reports` reads it.

The event loop answers, between two of its callbacks. A worker whose loop is blocked cannot: then the
supervisor sends a signal, and `faulthandler` prints the stacks of the threads.
"""

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from tamed._os.secrets import SECRETS
from tamed.ipc.message import Message
from tamed.net.listen import ListeningService
from tamed.net.tls import Certificate
from tamed.service.application import Application
from tamed.service.service import Service

__all__ = [
    "Serving",
    "certificates_of",
    "hooks_of",
    "report_of",
    "serving",
    "stacks_of_process",
    "timings_of",
]

_DEEPEST = 32  # levels of services; services below them are not shown
_DIGITS = 6  # of the seconds of a start
_MOST_CERTIFICATES = 200
_SLOWEST = 20  # services in the timings of a start
_MOST = 2**53  # the largest integer that every reader of JSON can represent
_MOST_THREADS = 100
_MOST_TASKS = 2000  # examined tasks; others are only counted
_MOST_STACKS = 100  # different ones
_MOST_FRAMES = 40  # of a stack
_LONGEST = 300  # characters of a line


@runtime_checkable
class Serving(Protocol):
    """A service that counts its connections: our servers, Twisted's, and any other with these attributes."""

    connections: int
    accepted: int


def serving(application: Application) -> list[Serving]:
    """Return the services of an application that count connections."""
    return [service for service in application.walk() if isinstance(service, Serving)]


def certificates_of(application: Application) -> list[Certificate]:
    """Return the certificates that the servers of an application show."""
    servers = (service for service in application.walk() if isinstance(service, ListeningService))
    return [certificate for server in servers for certificate in server.certificates]


def report_of(application: Application) -> Message:
    """Return the report of an application."""
    counting = serving(application)
    return {
        "connections": _count(each.connections for each in counting),
        "accepted": _count(each.accepted for each in counting),
        "certificates": [each._asdict() for each in certificates_of(application)[:_MOST_CERTIFICATES]],
        "tree": _tree(application, _DEEPEST),
    }


def timings_of(application: Application, load: float) -> Message:
    """Return the durations of the start; ``load`` is that of importing the application, in seconds."""
    hooks = [(service.full_name, service.lifecycle.took) for service in application.walk()]
    slowest = sorted(hooks, key=lambda each: sum(each[1].values()), reverse=True)[:_SLOWEST]
    return {
        "took": round(load + sum(sum(took.values()) for _, took in hooks), _DIGITS),
        "load": round(load, _DIGITS),
        "services": [
            {"name": name} | {phase: round(took.get(phase, 0.0), _DIGITS) for phase in ("prepare", "start")}
            for name, took in slowest
            if took
        ],
    }


def hooks_of(application: Application) -> list[Message]:
    """Return the running hooks, each with its service and its running time in seconds."""
    now = monotonic()
    running = [(each.full_name, each.lifecycle.calling) for each in application.walk()]
    return [
        {"name": name, "hook": calling[0], "since": round(now - calling[1], _DIGITS)}
        for name, calling in running
        if calling is not None
    ][:_SLOWEST]


def _count(numbers: Iterable[int]) -> int:
    return min(max(int(sum(numbers)), 0), _MOST)  # the numbers may come from the application


def _tree(service: Service, deepest: int) -> Message:
    return {
        "name": str(service.name),
        "state": service.state.value,
        "restarts": service.restarts,
        "summary": SECRETS.hidden(str(service.summary)),
        "children": [_tree(child, deepest - 1) for child in service.children] if deepest > 1 else [],
    }


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
    while frame is not None and len(lines) < _MOST_FRAMES:
        lines.append(_line(frame))
        frame = frame.f_back
    return lines[::-1]


def _lines_of_task(task: "asyncio.Task[Any]") -> Iterator[str]:
    """Yield the frames of a task: of its coroutine, of the awaited one, and so on."""
    if task is asyncio.current_task():
        yield "running"
        return
    awaited: Any = task.get_coro()
    for _ in range(_MOST_FRAMES):
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        yield _line(frame)
        # `finish_hook` steps a service's hook itself, so the hook is not in the chain of awaited coroutines.
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
