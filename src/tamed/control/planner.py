"""The planner: a process that reads the files anew for a reload, and ends.

It is run by the supervisor as ``python -m tamed.control.planner NAME``, gets the plan that is in force over
its channel, and answers with the one that is to follow it.
"""

from dataclasses import replace

from tamed.config.reading import Reading
from tamed.config.settings import Umask
from tamed.control.launch import job_again, plan_again
from tamed.ipc.channel import answer_order
from tamed.ipc.message import Message, read_text
from tamed.supervisor.plan import Plan

__all__ = ["main"]

_FIXED = ("user", "group", "keep_capabilities", "umask", "max_files")
"""What a process has for life: fields of the plan."""


def main() -> None:
    """Answer one order."""
    answer_order(_plan_anew)


def _plan_anew(order: Message) -> Message:
    """Return the plan that follows one, and a note for each change that cannot be made."""
    plan = Plan.from_text(read_text(order, "plan"))
    reading = Reading.of(job_again(plan))
    wanted = plan_again(plan, reading)
    changed = [name for name in _FIXED if getattr(plan, name) != getattr(wanted, name)]
    following = plan_again(plan, _with_fixed(reading, plan)) if changed else wanted
    notes = [f"{name.replace('_', '-')} has changed, which takes a restart" for name in changed]
    return {"plan": following.to_text(), "notes": notes}


def _with_fixed(reading: Reading, plan: Plan) -> Reading:
    """Return a reading in which what a process has for life is as the plan that is in force has it."""
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
