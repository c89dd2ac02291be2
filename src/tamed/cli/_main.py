"""The entry point of the command, and what becomes of errors there."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tamed.cli._group import commands
from tamed.errors import ExitStatus, TamedError, status_of

__all__ = ["main"]

_COMPLETE = "_TAMED_COMPLETE"
"""The environment variable that the scripts of ``tamed completion`` set, and what they ask for is in it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: with a status of ``ExitStatus``, with the application's own, or by a signal.

    ``arguments`` are those of the process, unless others are given.
    """
    _fill_standard_streams()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except click.ClickException as error:
        print(f"tamed: {_sentence(error)}", file=sys.stderr)
        status = ExitStatus.USAGE
    except TamedError as error:
        from tamed.runner import explain

        print(*explain(error), sep="\n", file=sys.stderr)
        status = status_of(error)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ExitStatus.OK
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        raise  # where the signal is blocked
    sys.exit(status)


def _fill_standard_streams() -> None:
    """Lead closed ones of the descriptors 0 to 2 to nowhere, so that no file of ours gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(arguments: list[str]) -> int:
    """Run the command, and return the status of one that has a status."""
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(commands, {}, "tamed", _COMPLETE, os.environ[_COMPLETE])
    # Not `commands.main`, which has exit statuses and ways of its own for a broken pipe and a Ctrl-C.
    try:
        with commands.make_context("tamed", arguments) as context:
            return commands.invoke(context) or 0
    except click.exceptions.Exit as wish:  # of --help and --version
        return wish.exit_code


def _sentence(error: click.ClickException) -> str:
    """Say what is wrong with the command line in our way: one line, lower case, with the remedy."""
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tamed"
    if isinstance(error, click.NoSuchOption):
        near = f"did you mean {error.possibilities[0]!r}? " if error.possibilities else ""
        return f"unknown option {error.option_name!r}; {near}`{where} --help` lists them"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see `{where} --help`"
