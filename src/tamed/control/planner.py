"""The planner: a process that reads the files again for a reload, and ends.

The supervisor runs it as ``python -m tamed.control.planner NAME``. It gets the current plan over its channel,
and answers with the next plan.
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
"""The fields of a plan that a running process cannot change."""


def main() -> None:
    """Answer one order."""
    answer_order(_next_plan)


def _next_plan(order: Message) -> Message:
    """Return the plan that follows one, and a note for each change that needs a restart."""
    plan = Plan.from_text(read_text(order, "plan"))
    reading = Reading.of(job_again(plan))
    wanted = plan_again(plan, reading)
    changed = [name for name in _FIXED if getattr(plan, name) != getattr(wanted, name)]
    following = plan_again(plan, _with_fixed(reading, plan)) if changed else wanted
    notes = [f"{name.replace('_', '-')} has changed, which takes a restart" for name in changed]
    return {"plan": following.to_text(), "notes": notes}


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
