"""The command ``tamed stacks``: the current stack of each thread and task of each worker."""

import json
from collections.abc import Iterator
from typing import Any

from tamed._os.text import shown_in_json
from tamed.cli._text import duration, one_line, shown_lines
from tamed.cli.instances import instance_of
from tamed.control.stacks import stacks_of_instance

__all__ = ["stack_lines", "stacks"]


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
