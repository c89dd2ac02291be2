"""The entry point of the command, and what becomes of errors there."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from tamed.errors import ExitStatus, TamedError, status_of

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: with a status of ``ExitStatus``, with the application's own, or by a signal.

    ``arguments`` are those of the process, unless others are given.
    """
    _fill_standard_streams()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except TamedError as error:
        from tamed.ipc.fault import explain

        print(*explain(error), sep="\n", file=sys.stderr)
        status = status_of(error)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ExitStatus.OK
    except KeyboardInterrupt:
        from tamed.unix.process import end_by_signal

        status = end_by_signal(signal.SIGINT)
    sys.exit(status)


def _fill_standard_streams() -> None:
    """Lead closed ones of the descriptors 0 to 2 to nowhere, so that no file of ours gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)  # as a standard stream is, for what is executed next
            else:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(arguments: list[str]) -> int:
    """Run a command line; what scripts ask for again and again loads nothing that it does not need."""
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
