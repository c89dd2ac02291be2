"""A trial of the program that is to take the supervisor's place: ``python -m tamed.runner.trial NAME``.

It is run by the supervisor, loads all that the new program will load, reads what that is to take over, and
says so.
"""

import tamed.runner.supervisor  # noqa: F401 - that it can be loaded is what is tried out
from tamed._version import __version__
from tamed.runner._errand_child import answer_errand
from tamed.runner._legacy import Legacy
from tamed.runner._message import Message, read_object
from tamed.runner._plan import Plan

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
