"""A trial run of a new supervisor program before an upgrade: ``python -m tamed.supervisor.trial NAME``.

The supervisor runs it. It loads the modules that the new program will load, reads the state that the new
program will resume from, and reports its version.
"""

import tamed.supervisor.program  # noqa: F401 - the trial is that it can be loaded
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
