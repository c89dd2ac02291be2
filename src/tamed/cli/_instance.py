"""The part of the command line that the commands for an instance share: its name, and where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tamed._text import shown
from tamed.daemon import Instance
from tamed.runner import find_instance, run_directory

__all__ = ["for_instance", "instance_of", "show_wait"]

_RUNDIR = click.Option(
    ["--rundir"],
    type=click.Path(path_type=Path),
    envvar="TAMED_RUNDIR",
    metavar="FOLDER",
    help="The folder in which the instances live.  [env: TAMED_RUNDIR]",
)


def for_instance(help_text: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command that takes the NAME of an instance, which may be left out if only one runs."""

    def make(function: Callable[..., Any]) -> click.Command:
        command = click.command(help=help_text, context_settings={"help_option_names": ["-h", "--help"]})(
            function
        )
        command.params.append(_RUNDIR)
        command.params.append(click.Argument(["name"], required=False))
        return command

    return make


def instance_of(name: str | None, rundir: Path | None) -> Instance:
    """Return the instance that was asked for."""
    return find_instance(run_directory(rundir), name)


def show_wait(what: str) -> None:
    """Say that a request waits for its turn, and for what."""
    click.echo(f"tamed: {shown(what)} is under way; this waits for its turn", err=True)
