"""The commands ``status``, ``roles`` and ``stacks``: the state of instances, and what their workers do."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from tamed._os.text import counted, shown_in_json
from tamed.cli._text import cell, duration, one_line, shown_lines, size, table, uptime
from tamed.cli.instances import directory_of, ending, instance_of
from tamed.control.instances import find_instance, other_owner, stacks_of_instance, status_of_instance
from tamed.errors import ExitStatus, TamedError, Unavailable, status_of
from tamed.supervisor.plan_file import stopped_names
from tamed.unix.rundir import is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

    from tamed.supervisor.records import LastState
    from tamed.unix.rundir import Instance, RunDirectory

__all__ = [
    "failed_reload",
    "failing_checks",
    "last_state",
    "roles",
    "stack_lines",
    "stacks",
    "status",
    "status_lines",
]

_STATUS_OF: Final = {"running": 0, "starting": 3, "degraded": 4, "failing": 5, "stopping": 6, "stopped": 0}
_ENDED: Final = 7  # the exit status for an instance that has ended by itself
_INSTANCES: Final = (
    "NAME",
    "STATE",
    "PID",
    "UP",
    "WORKERS",
    "RESTARTS",
    "CONNECTIONS",
    "MEMORY",
    "ADDRESSES",
)
_WORKER: Final = ("#", "WORKER", "GENERATION", "STATE", "UP", "MEMORY", "CPU", "CONNECTIONS", "ACCEPTED")
_ROLE: Final = ("ROLE", "STATE", "WORKER", "PID", "GENERATION", "SINCE", "TRANSITIONS", "VACANT", "STANDBY")
_GLANCE: Final = 6.0  # seconds for one of many instances to answer; its workers have 5
_PAUSE: Final = 2.0  # seconds between two looks with --watch
_CLEAR: Final = "\x1b[H\x1b[J"


_Seen = tuple[object, list[str], int]
"""The value for --json, the lines for people, and the exit status."""


def status(name: str | None, rundir: str | None, lines: int, as_json: bool, watch: bool) -> int:
    """Show the state of all instances, or of one; return the exit status for the least healthy."""
    directory = directory_of(rundir)
    while True:
        look = _all(directory) if name is None else _one(directory, name, 0 if as_json else lines)
        found, text, code = look
        clear = _CLEAR if watch and sys.stdout.isatty() and not as_json else ""
        shape = (
            shown_in_json(json.dumps(found, indent=None if watch else 2)) if as_json else shown_lines(text)
        )
        print(f"{clear}{shape}", flush=True)
        if not watch:
            return code
        time.sleep(_PAUSE)


# All instances.


def _all(directory: RunDirectory) -> _Seen:
    running = directory.running()
    seen = [_glance(each) for each in running]
    left = _last_states(directory, {each.name for each in running})
    seen += [(_ended(each), _STATUS_OF.get(each.state, _ENDED)) for each in left]
    if not seen:
        find_instance(directory, None)  # raises, with the reason
    seen.sort(key=lambda each: str(each[0]["name"]))
    found = [each for each, _ in seen]
    return found, list(table(_INSTANCES, map(_row, found))), max(code for _, code in seen)


def _last_states(directory: RunDirectory, running: set[str]) -> list[LastState]:
    with suppress(OSError):
        names = {entry.name for entry in directory.path.iterdir() if is_name(entry.name)}
        if not (names | set(stopped_names(directory))) - running:
            return []
    from tamed.control.records import last_states  # lazy import: usually all instances run

    return last_states(directory)


def _glance(instance: Instance) -> tuple[dict[str, Any], int]:
    try:
        found = status_of_instance(instance, _GLANCE)
    except TamedError as error:
        return {"name": instance.name, "state": "unknown", "error": str(error)}, status_of(error)
    return found, _STATUS_OF.get(found["state"], _STATUS_OF["starting"])


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    name, state = str(found["name"]), cell(found["state"])
    if "workers" not in found:
        when = f"at {found['ended_at']}: " if found.get("ended_at") else ""
        return (name, state, "", "", "", "", "", "", cell(f"{when}{found['error']}"))
    workers = found["workers"]
    return (
        name,
        state,
        str(found["pid"]),
        uptime(found["uptime"]),
        f"{found['ready']}/{found['wanted']}",
        str(found["restarts"]),
        str(sum(each.get("connections", 0) for each in workers)),
        size(sum(each["memory"] or 0 for each in workers)),
        cell(", ".join(found["endpoints"])),
    )


def _ended(left: LastState) -> dict[str, Any]:
    return {**left._asdict(), "state": left.state}


# One instance.


def _one(directory: RunDirectory, name: str, lines: int) -> _Seen:
    try:
        instance = find_instance(directory, name)
        found = status_of_instance(instance)
    except Unavailable:
        if (left := last_state(directory, name)) is None:
            raise
        text = [*ending(left), *_log_left(directory, name, lines)]
        return _ended(left), text, ExitStatus.UNAVAILABLE if left.state == "stopped" else _ENDED
    text = [*status_lines(found)]
    if found["log"]:
        text += _log_tail(Path(found["log"]), other_owner(instance.directory), lines)
    return found, text, _STATUS_OF.get(found["state"], _STATUS_OF["starting"])


def last_state(directory: RunDirectory, name: str | None) -> LastState | None:
    """Return how an instance ended; None if that is unknown.

    Without a name, return that of the only instance that ended by itself.
    """
    from tamed.control.records import last_state_of, last_states  # lazy import: usually the instance runs

    left = last_state_of(directory, name)
    if left is not None or name is None:
        return left
    return next((each for each in last_states(directory) if each.name == name), None)


def failing_checks(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each check that fails, with the reason."""
    for check in found.get("checks", ()):
        if check["failing"]:
            where = f" in {check['failing']} of {check['asked']} workers" if check["asked"] > 1 else ""
            yield f"the check of {check['name']} fails{where}: {check['why']}"


def status_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a status for people to read."""
    ready = "" if found["state"] == "running" else f", {found['ready']} of {found['wanted']} workers ready"
    ready += ", reloading" if found["reloading"] else ""
    yield f"{found['name']} is {found['state']}: pid {found['pid']}, up {uptime(found['uptime'])}{ready}"
    yield from _endpoint_lines(found)
    yield from failing_checks(found)
    if found["last_error"]:
        yield f"last error, at {found['last_error_at']}: {found['last_error']}"
    if (reload := failed_reload(found)) is not None:
        yield f"last reload, at {reload['time']}: {reload['text']}"
    if found["restarts"]:
        yield f"restarts: {found['restarts']}"
    yield from _role_lines(found)
    for warning in found.get("warnings", ()):
        yield f"warning: {warning}"
    yield ""
    oldest_first = sorted(found["workers"], key=lambda worker: (worker["generation"], worker["number"]))
    yield from table(_WORKER, map(_worker, oldest_first))
    serving = [worker for worker in found["workers"] if worker["generation"] == found["generation"]]
    trees = [worker["tree"] for worker in serving if "tree" in worker]
    if trees:
        yield ""
        yield from table(("SERVICE", "STATE", "RESTARTS", ""), list(_services(trees[0])))


def _endpoint_lines(found: dict[str, Any]) -> Iterator[str]:
    for endpoint in found["endpoints"]:
        yield f"listening on {endpoint}"
    for certificate in found["certificates"]:
        ends = certificate["ends"] or "at an unknown time"
        yield f"the certificate of {certificate['endpoint']} ends {ends}: {certificate['file']}"


def failed_reload(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of the last reload or upgrade, if that has failed."""
    for event in reversed(found.get("events", ())):
        if event["event"] in ("reload", "upgrade"):
            return event if event.get("outcome") == "failed" else None
    return None


def _worker(worker: dict[str, Any]) -> tuple[str, ...]:
    cpu = "" if worker["cpu"] is None else f"{worker['cpu']:.2f} s"
    counts = (str(worker.get(key, "")) for key in ("connections", "accepted"))
    return (
        str(worker["number"]),
        str(worker["pid"]),
        str(worker["generation"]),
        cell(worker["state"]),
        uptime(worker["uptime"]),
        size(worker["memory"]),
        cpu,
        *counts,
    )


def _services(tree: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, ...]]:
    name, state, summary = (cell(tree[key]) for key in ("name", "state", "summary"))
    yield (f"{'  ' * depth}{name}", state, str(tree["restarts"] or ""), summary)
    for child in tree["children"]:
        yield from _services(child, depth + 1)


def _log_left(directory: RunDirectory, name: str, count: int) -> Iterator[str]:
    """Yield the last lines of the log of an ended instance; nothing if it has no log file."""
    from tamed.control.records import log_of_instance  # lazy import: usually the instance runs

    with suppress(TamedError, OSError):
        yield from _log_tail(*log_of_instance(directory, name), count)


def _log_tail(file: Path, owner: int | None, count: int) -> Iterator[str]:
    """Yield the last lines of a log, which must belong to ``owner``; nothing if it cannot be read."""
    if not count:
        return
    from tamed.log.reader import LogReader  # lazy import: not needed for --json

    with suppress(TamedError, OSError):
        with closing(LogReader(file, owner)) as reader:
            lines = reader.last(count)
        yield ""
        yield f"the end of {file}:"
        yield from (line.decode(errors="backslashreplace").rstrip("\n") for line in lines)


def roles(name: str | None, rundir: str | None, as_json: bool) -> int:
    """Show the roles of an instance; return the exit status."""
    found = status_of_instance(instance_of(name, rundir))
    each = found["roles"]
    if as_json:
        print(shown_in_json(json.dumps(each, indent=2)))
    elif each:
        print(shown_lines(list(table(_ROLE, [_role_row(role) for role in each]))))
    else:
        print(f"no service of {cell(found['name'])} runs in one worker only")
    is_degraded = any(role["state"] == "vacant" or role["trouble"] for role in each)
    return _STATUS_OF["degraded"] if is_degraded else 0


def _role_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each role of a status."""
    for role in found["roles"]:
        for_how_long = f"for {uptime(role['age'])}"
        if role["state"] == "standby":
            yield f"role {cell(role['role'])}: on another machine, {cell(role['holder'])}, {for_how_long}"
        elif role["pid"] is None:
            yield f"role {cell(role['role'])}: no worker holds it {for_how_long}"
        else:
            stops = ", which is resigning it" if role["state"] == "resigning" else ""
            where = f"worker {role['worker']} (pid {role['pid']})"
            yield f"role {cell(role['role'])}: held by {where}{stops} {for_how_long}"


def _role_row(role: dict[str, Any]) -> tuple[str, ...]:
    holder = ("worker", "pid", "generation")
    return (
        cell(role["role"]),
        cell(f"{role['state']}: {role['holder']}" if role["holder"] else role["state"]),
        *("" if role[key] is None else str(role[key]) for key in holder),
        uptime(role["age"]),
        str(role["transitions"]),
        f"{role['vacant']:.1f} s",
        str(role["standby"]),
    )


def stacks(name: str | None, rundir: str | None, as_json: bool) -> None:
    """Show the stacks of the workers of an instance."""
    found = stacks_of_instance(instance_of(name, rundir))
    if as_json:
        print(shown_in_json(json.dumps(found, indent=2)))
        return
    for number, worker in enumerate(found):
        print("\n" * (number > 0) + shown_lines(stack_lines(worker)))


def stack_lines(worker: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that show the stacks of one worker."""
    who = f"worker {worker['worker']}, pid {worker['pid']}"
    yield f"{who}, generation {worker['generation']}, {worker['state']}"
    if not worker["answered"]:
        yield "  it does not answer: its event loop is blocked, or not running yet"
        yield from (f"  {one_line(line)}" for line in worker["printed"])
        return
    for hook in worker["hooks"]:
        yield f"  in {hook['hook']} of {one_line(hook['name'])} for {duration(hook['since'])}"
    for thread in worker["threads"]:
        yield f"  thread {one_line(thread['name'])}"
        yield from (f"    {one_line(line)}" for line in thread["lines"])
    yield f"  {counted(worker['count'], 'task')}"
    for task in worker["tasks"]:
        others = f" and {task['count'] - 1} like it" if task["count"] > 1 else ""
        yield f"  task {one_line(task['name'])}{others}"
        yield from (f"    {one_line(line)}" for line in task["lines"])
