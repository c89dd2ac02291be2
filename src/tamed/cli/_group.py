"""The group of the commands, each of them loaded when it is used."""

import importlib

import click

from tamed._version import __version__
from tamed.errors import UsageError

__all__ = ["commands"]

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

_HELP = """Turn a Python network program into a well-behaved daemon.

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
        command = getattr(importlib.import_module(f"tamed.cli._{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for; suggest the nearest when there is none."""
        if args and args[0] not in _COMMANDS and not ctx.resilient_parsing:
            from tamed._words import did_you_mean

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
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="tamed")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Hold the commands; show the help if none is asked for."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
