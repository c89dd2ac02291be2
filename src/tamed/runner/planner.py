"""The planner: a process that reads the files anew for a reload, and ends.

It is run by the supervisor as ``python -m tamed.runner.planner NAME``, gets the plan that is in force over
its channel, and answers with the one that is to follow it.
"""

import os
import select
import socket
import sys
from dataclasses import replace
from typing import NoReturn

from tamed.config import Job
from tamed.errors import TamedError, status_of
from tamed.runner._channel import Channel, Message
from tamed.runner._explain import explain
from tamed.runner._launch import plan_again
from tamed.runner._plan import Plan
from tamed.runner._spawn import CHANNEL, RECORDS

__all__ = ["main"]

_FIXED = ("user", "group", "keep_capabilities", "umask", "max_files", "directory")
"""What a process has for life."""


def main() -> NoReturn:
    """Answer one order, and exit."""
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=CHANNEL))
    try:
        answer = _answer(Plan.from_text(_order(channel)["plan"]))
    except TamedError as error:
        answer = {"fault": {"lines": list(explain(error)), "status": status_of(error)}}
    channel.send(answer)
    while not channel.flush():
        select.select([], [channel], [])
    sys.exit()


def _order(channel: Channel) -> Message:
    while not channel.closed:
        select.select([channel], [], [])
        for message, _ in channel.receive():
            return message
    sys.exit("the supervisor is gone")


def _answer(plan: Plan) -> Message:
    """Return the plan that follows one, and a note for each change that cannot be made."""
    following = plan_again(plan, Job.from_data(plan.job))
    changed = [name for name in _FIXED if getattr(plan, name) != getattr(following, name)]
    kept = {name: getattr(plan, name) for name in _FIXED}
    notes = [f"{name.replace('_', '-')} has changed, which takes a restart" for name in changed]
    return {"plan": replace(following, **kept).to_text(), "notes": notes}


if __name__ == "__main__":
    main()
