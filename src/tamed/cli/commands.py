"""The command line as click reads it: the group of the commands, each loaded when it is used."""

import importlib
import os
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from tamed._version import __version__
from tamed.cli.options import Command
from tamed.errors import UsageError

__all__ = ["commands", "completion", "run_command"]


_COMMANDS = {
    "check": "Load and validate a target and show its services; run nothing.",
    "completion": "Print what makes a shell complete the command.",
    "logs": "Show the log of an instance.",
    "new": "Write a small package with a service, a plugin and tests.",
    "password": "Print a line of a password file.",
    "plugins": "List what can be run by name.",
    "reload": "Let new workers with new code take over; lose no connection.",
    "reopen": "Let an instance open its log file anew.",
    "restart": "Stop an instance and start it again, as it was started.",
    "run": "Run a target in the foreground; Ctrl-C stops it.",
    "scale": "Change how many workers an instance has.",
    "start": "Run a target as a daemon; return when it is ready, or say why it is not.",
    "status": "Show how an instance stands.",
    "stop": "Stop an instance and wait until it has drained.",
    "upgrade": "Replace the supervisor's own program in place, and reload.",
    "twistd": "Take twistd's command line, and run what it says.",
}

_MODULES = {
    "check": "targets",
    "completion": "commands",
    "logs": "instances",
    "new": "new",
    "password": "password",
    "plugins": "plugins",
    "reload": "instances",
    "reopen": "instances",
    "restart": "instances",
    "run": "targets",
    "scale": "instances",
    "start": "targets",
    "status": "instances",
    "stop": "instances",
    "upgrade": "instances",
    "twistd": "twistd",
}

_GROUP_HELP = """Turn a Python network program into a well-behaved daemon.

TARGET is the name of a plugin, an application file (FILE.py), PACKAGE.MODULE:VARIABLE, or a deployment file
(FILE.toml). Options of the daemon stand before it, and the service's own behind it.

\b
Examples:
  tamed run fastpoetry                 serve a poem on port 10000
  tamed run fastpoetry --help          the options of a plugin
  tamed run verse.toml                 what a deployment file says
  tamed run --log-level debug app.py   an application file, told in detail
  tamed check verse.toml               see what would be run
  tamed plugins                        what can be run by name
"""


class _Lazy(click.Group):
    """A group that knows what its commands are called and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands by name."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command from the module of its name."""
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"tamed.cli.{_MODULES[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for; suggest the nearest when there is none."""
        if args and args[0] not in _COMMANDS and not ctx.resilient_parsing:
            from tamed._os.text import did_you_mean

            remedy = did_you_mean(args[0], _COMMANDS, "`tamed --help` lists them")
            raise UsageError(f"unknown command {args[0]!r}", remedy=remedy)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with what they do, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(
    "tamed",
    cls=_Lazy,
    help=_GROUP_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="tamed")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Hold the commands; show the help if none is asked for."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


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


_COMPLETION_HELP = """Print what makes a shell complete commands, options, plugins and targets.

SHELL is bash, zsh or fish.

\b
Examples:
  eval "$(tamed completion bash)"    in ~/.bashrc
  eval "$(tamed completion zsh)"     in ~/.zshrc
  tamed completion fish > ~/.config/fish/completions/tamed.fish
"""


@click.command(cls=Command, help=_COMPLETION_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "tamed", "_TAMED_COMPLETE").source())
