"""The command line as the command-line library reads it, with its mistakes told in our way."""

import os
from collections.abc import Sequence

import click

from tamed.cli._group import commands
from tamed.errors import UsageError

__all__ = ["run_command"]

_COMPLETE = "_TAMED_COMPLETE"
"""The environment variable that the scripts of ``tamed completion`` set, and what they ask for is in it."""


def run_command(arguments: Sequence[str]) -> int:
    """Run the command, and return the status of one that has a status."""
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(commands, {}, "tamed", _COMPLETE, os.environ[_COMPLETE])
    # Not `commands.main`, which has exit statuses and ways of its own for a broken pipe and a Ctrl-C.
    try:
        with commands.make_context("tamed", list(arguments)) as context:
            return commands.invoke(context) or 0
    except click.exceptions.Exit as wish:  # of --help and --version
        return wish.exit_code
    except click.ClickException as error:
        raise UsageError(_sentence(error)) from error


def _sentence(error: click.ClickException) -> str:
    """Say what is wrong with the command line in our way: one line, lower case, with the remedy."""
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tamed"
    if isinstance(error, click.NoSuchOption):
        near = f"did you mean {error.possibilities[0]!r}? " if error.possibilities else ""
        return f"unknown option {error.option_name!r}; {near}`{where} --help` lists them"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; see `{where} --help`"
