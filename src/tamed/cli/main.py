"""The entry point of the command: runs it, prints errors, and exits with the status."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from tamed.errors import ExitStatus, TamedError, status_of

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: with a status of ``ExitStatus``, with the application's own, or by a signal.

    ``arguments`` default to those of the process.
    """
    _fill_standard_streams()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except TamedError as error:
        from tamed.ipc.fault import explain

        print(*explain(error), sep="\n", file=sys.stderr)
        status = status_of(error)
    except BrokenPipeError:  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ExitStatus.OK
    except KeyboardInterrupt:
        from tamed.unix.process import end_by_signal

        status = end_by_signal(signal.SIGINT)
    sys.exit(status)


def _fill_standard_streams() -> None:
    """Open /dev/null for each closed descriptor of 0 to 2, so that no other file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)  # as a standard stream is, for a program executed later
            else:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(arguments: list[str]) -> int:
    """Run a command line. The two cases that scripts run often load only the modules that they need."""
    match arguments:
        case ["--version"]:
            from tamed._version import __version__

            print("tamed", __version__)
            return ExitStatus.OK
        case ["__complete", shell, *words]:
            from tamed.cli.completion import offer

            return offer(shell, words)
    from tamed.cli.commands import run_command

    return run_command(arguments)
