"""A trial of the program that is to take the supervisor's place: ``python -m tamed.supervisor.trial NAME``.

It is run by the supervisor, loads all that the new program will load, reads what that is to take over, and
says so.
"""

import tamed.supervisor.__main__  # noqa: F401 - that it can be loaded is what is tried out
from tamed._version import __version__
from tamed.ipc.channel import answer_order
from tamed.ipc.handoff import HandoffState
from tamed.ipc.message import Message, read_object
from tamed.supervisor.plan import Plan

__all__ = ["main"]


def main() -> None:
    """Answer one order."""
    answer_order(_try)


def _try(order: Message) -> Message:
    state = HandoffState.checked(read_object(order, "state"))
    for generation in state["supervisor"]["rollout"]["generations"]:
        Plan.from_text(generation["plan"])
    return {"ready": __version__}


if __name__ == "__main__":
    main()
