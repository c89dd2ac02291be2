"""``tamed twistd``: runs a command line of twistd with Tamed."""

import atexit
import sys
from collections.abc import Sequence

from tamed.cli.password import ask_secret
from tamed.config.kinds import kind_of
from tamed.unix.process import end_by_signal

__all__ = ["twistd"]


def twistd(words: Sequence[str]) -> int:
    """Run a command line of twistd."""
    from tamed.control.foreground import run
    from tamed.control.launch import start

    line = kind_of("twisted").command_line(words)
    for notice in line.notices:
        print(f"tamed: {notice}", file=sys.stderr)
    if line.foreground:
        signals: list[int] = []
        atexit.register(_end_as_twistd, signals)  # before the program registers anything, so called last
        ending = run(line.job, ask_secret)
        if ending.signal is not None:
            signals.append(ending.signal)
        return ending.status
    report = start(line.job, ask_secret)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status


def _end_as_twistd(signals: Sequence[int]) -> None:
    """End by the signal that stopped the program, as twistd does at the end of its shutdown."""
    for number in signals:
        sys.stdout.flush()
        end_by_signal(number)
