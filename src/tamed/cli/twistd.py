"""``tamed twistd``: what a command line of twistd's says, run by Tamed."""

import atexit
import sys
from collections.abc import Sequence

from tamed.config.kinds import kind_of
from tamed.unix.process import end_by_signal

__all__ = ["twistd"]


def twistd(words: Sequence[str]) -> int:
    """Run what a command line of twistd's says."""
    from tamed.control.launch import run, start

    said = kind_of("twisted").command_line(words)
    for remark in said.remarks:
        print(f"tamed: {remark}", file=sys.stderr)
    if said.foreground:
        told: list[int] = []
        atexit.register(_end_as_twistd, told)  # before the program registers anything, so called last
        ending = run(said.job)
        if ending.signal is not None:
            told.append(ending.signal)
        return ending.status
    report = start(said.job)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status


def _end_as_twistd(told: Sequence[int]) -> None:
    """End by the signal that has stopped the program, as twistd does when it has stopped all."""
    for number in told:
        sys.stdout.flush()
        end_by_signal(number)
