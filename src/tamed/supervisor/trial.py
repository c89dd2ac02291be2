"""A trial of the program that is to take the supervisor's place: ``python -m tamed.supervisor.trial NAME``.

It is run by the supervisor, loads all that the new program will load, reads what that is to take over, and
says so.
"""

import tamed.supervisor.__main__  # noqa: F401 - that it can be loaded is what is tried out
from tamed._version import __version__
from tamed.ipc.channel import answer_errand
from tamed.ipc.handoff import Legacy
from tamed.ipc.message import Message, read_object
from tamed.supervisor.plan import Plan

__all__ = ["main"]


def main() -> None:
    """Answer one order."""
    answer_errand(_try)


def _try(order: Message) -> Message:
    legacy = Legacy.checked(read_object(order, "legacy"))
    for generation in legacy["supervisor"]["generations"]:
        Plan.from_text(generation["plan"])
    return {"ready": __version__}


if __name__ == "__main__":
    main()
