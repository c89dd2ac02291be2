"""The commands ``roles`` and ``stacks``: the holder of each role, and the current stacks of the workers."""

import json
from collections.abc import Iterator
from typing import Any, Final

from tamed._os.text import shown_in_json
from tamed.cli._text import cell, duration, one_line, shown_lines, table, uptime
from tamed.cli.instances import instance_of
from tamed.control.instances import stacks_of_instance, status_of_instance

__all__ = ["role_lines", "roles", "stack_lines", "stacks"]

_ROLE: Final = ("ROLE", "STATE", "WORKER", "PID", "GENERATION", "SINCE", "TRANSITIONS", "VACANT", "STANDBY")
_VACANT: Final = 4  # exit status, the same as for a degraded daemon


def roles(name: str | None, rundir: str | None, as_json: bool) -> int:
    """Show the roles of an instance; return the exit status."""
    found = status_of_instance(instance_of(name, rundir))
    each = found["roles"]
    if as_json:
        print(shown_in_json(json.dumps(each, indent=2)))
    elif each:
        print(shown_lines(list(table(_ROLE, [_row(role) for role in each]))))
    else:
        print(f"no service of {cell(found['name'])} runs in one worker only")
    return _VACANT if any(role["state"] == "vacant" or role["trouble"] for role in each) else 0


def role_lines(found: dict[str, Any]) -> Iterator[str]:
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


def _row(role: dict[str, Any]) -> tuple[str, ...]:
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
    yield f"  {worker['count']} task{'s' * (worker['count'] != 1)}"
    for task in worker["tasks"]:
        others = f" and {task['count'] - 1} like it" if task["count"] > 1 else ""
        yield f"  task {one_line(task['name'])}{others}"
        yield from (f"    {one_line(line)}" for line in task["lines"])
