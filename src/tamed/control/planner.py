"""The planner: a short-lived process that reads the files again for a reload.

The supervisor runs it as ``python -m tamed.control.planner NAME``, or has a template fork it. It receives
the current plan over its channel, and answers with the next one.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tamed.config.job import Reading
from tamed.config.settings import Umask
from tamed.control.launch import job_again, plan_again
from tamed.ipc.channel import Channel, answer_order
from tamed.ipc.message import Message, read_text
from tamed.supervisor.plan import Plan

__all__ = ["main"]

_FIXED = ("user", "group", "keep_capabilities", "umask", "max_files")
"""The fields of a plan that a running process cannot change."""


def main(channel: Channel | None = None) -> None:
    """Answer one order. A forked process passes its ``channel``."""
    answer_order(_next_plan, channel)


def _next_plan(order: Message) -> Message:
    """Return the plan that follows one, and a note for each change that needs a restart."""
    plan = Plan.from_text(read_text(order, "plan"))
    reading = Reading.of(job_again(plan))
    wanted = plan_again(plan, reading)
    changed = [name for name in _FIXED if getattr(plan, name) != getattr(wanted, name)]
    following = plan_again(plan, _with_fixed(reading, plan)) if changed else wanted
    notes = [f"{name.replace('_', '-')} has changed and needs a restart" for name in changed]
    return {"plan": following.to_text(), "notes": notes, "changed": _changes(plan, reading)}


def _changes(plan: Plan, after: Reading) -> list[str]:
    """Return the names of the settings that differ, without their values, which may be secret."""
    if plan.reading is None:
        return []
    before = Reading.from_data(after.job, plan.reading)
    changed = [f"program {after.program}"] if before.program != after.program else []
    changed += sorted(_differing(before.settings.to_data(), after.settings.to_data()))
    old, new = (_table(each) for each in (before, after))
    return changed + [each for each in sorted(_differing(old, new)) if each not in changed]


def _as_table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _table(reading: Reading) -> dict[str, Any]:
    return {} if reading.deployment is None else tomllib.loads(reading.deployment.text)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted names of the keys with different values."""
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from _differing(_as_table(old), _as_table(new), f"{above}{key}.")
        elif old != new:
            yield f"{above}{key}"


def _with_fixed(reading: Reading, plan: Plan) -> Reading:
    """Return a reading with the fixed fields of the current plan."""
    daemon = replace(
        reading.settings.daemon,
        user=plan.user,
        group=plan.group,
        keep_capability=list(plan.keep_capabilities),
        umask=Umask(plan.umask),
        max_files=plan.max_files,
    )
    return reading._replace(settings=reading.settings._replace(daemon=daemon))


if __name__ == "__main__":
    main()
