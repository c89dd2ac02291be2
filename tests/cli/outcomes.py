"""Checks of a command's outcome, independent of its arguments."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from tamed.errors import ExitStatus

OF_STATES: Final = frozenset(range(3, 8))
"""The statuses with which `tamed status` reports the state of an instance."""

BLAMELESS: Final = frozenset(
    value
    for name, value in vars(ExitStatus).items()
    if isinstance(value, int) and name not in ("SOFTWARE", "OK")
)
"""The statuses that blame anything but Tamed and the application."""


class Done(NamedTuple):
    """The outcome of a command."""

    status: int
    out: str
    err: str


def faults_of(
    done: Done, expected: Collection[int], subjects: Iterable[str], program: str = ""
) -> Iterator[str]:
    """Yield what is wrong with an outcome.

    Its status is 0, of a state or expected. If it failed, its last line has one of the subjects; what
    `tamed status` prints of an instance that it cannot ask is enough. A traceback is only for the program
    of the user.
    """
    last = done.err.rstrip("\n").rpartition("\n")[2]
    if "Traceback" in done.err:
        yield from () if last.startswith(f"tamed: {program} raised") else ["a traceback"]
    elif done.status not in (0, *OF_STATES, *expected):
        yield f"the status {done.status}"
    if not f"{done.out}{done.err}".replace("\n", "").isprintable():
        yield "a control character"
    is_named = last.startswith("tamed: ") and any(each and each in last for each in subjects)
    is_told = not done.err and any(each and each in done.out for each in subjects)
    if done.status not in (0, *OF_STATES) and not is_named and not is_told:
        yield "no subject"


def reported(faults: Iterable[str], words: Sequence[str], done: Done) -> list[str]:
    """Return the faults with the command that caused them, in ASCII, because pytest reports need that."""
    return [ascii((fault, [word[:80] for word in words], done.status, done.err[-300:])) for fault in faults]
