"""The planner: a process that reads the files anew for a reload, and ends.

It is run by the supervisor as ``python -m tamed.control.planner NAME``, gets the plan that is in force over
its channel, and answers with the one that is to follow it.
"""

from tamed.control.launch import job_again, plan_again
from tamed.ipc.channel import answer_order
from tamed.ipc.message import Message, read_text
from tamed.supervisor.plan import Plan

__all__ = ["main"]

_FIXED = ("user", "group", "keep_capabilities", "umask", "max_files")
"""What a process has for life."""


def main() -> None:
    """Answer one order."""
    answer_order(_plan_anew)


def _plan_anew(order: Message) -> Message:
    """Return the plan that follows one, and a note for each change that cannot be made."""
    plan = Plan.from_text(read_text(order, "plan"))
    following = plan_again(plan, job_again(plan))
    changed = [name for name in _FIXED if getattr(plan, name) != getattr(following, name)]
    kept = {name: getattr(plan, name) for name in _FIXED}
    notes = [f"{name.replace('_', '-')} has changed, which takes a restart" for name in changed]
    return {"plan": following._replace(**kept).to_text(), "notes": notes}


if __name__ == "__main__":
    main()
