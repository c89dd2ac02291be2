"""The part of the command line that all commands with a TARGET share: from its words to a job."""

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from tamed.cli._command import Command
from tamed.cli._daemon_options import ALIASES, DAEMON_OPTIONS, PLUGIN_DIR, folders, trust_if_told
from tamed.cli._options import given_flags, make_option
from tamed.cli._service import service_command
from tamed.cli._service_options import services
from tamed.config.job import Job
from tamed.config.kinds import kind_of, resolve
from tamed.config.target import TargetKind
from tamed.errors import TamedError, UsageError
from tamed.plugins.discovery import names

__all__ = ["TargetCommand", "job_of"]


class TargetCommand(Command):
    """A command with the options of the daemon, a TARGET, and the target's own options behind it."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        # What stands behind the target is the target's, even if it looks like an option of ours.
        super().__init__(name, context_settings={"allow_interspersed_args": False}, **attributes)
        self.params += [
            make_option(each, prefix.rstrip("-"), prefix, alias=ALIASES.get(f"{prefix}{each.key}", ""))
            for prefix, options in DAEMON_OPTIONS
            for each in options
        ]
        self.params += [
            click.Option(
                ["plugin_dirs", PLUGIN_DIR],
                multiple=True,
                type=click.Path(),
                metavar="FOLDER",
                help="A folder with plugins, a file NAME.py for each.  [repeatable; env: TAMED_PLUGIN_PATH]",
            ),
            click.Argument(["target"], type=_TargetType(), metavar="TARGET"),
            click.Argument(["words"], nargs=-1, type=_WordType(), metavar="[SERVICE OPTIONS]"),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; say of an option that is not ours where the others stand."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            remedy = f"the options of the service stand behind TARGET; see `{ctx.command_path} --help`"
            raise UsageError(f"unknown option {error.option_name!r}", remedy=remedy) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete our options before the target, and the target's own behind it."""
        if ctx.params.get("target"):
            return _complete_word(ctx, incomplete)
        return super().shell_complete(ctx, incomplete)


def job_of(ctx: click.Context) -> Job:
    """Make the job from a parsed command line; parse the target's own options, or show their help."""
    job = _job(ctx.params)
    words = ctx.params["words"]
    if not words:
        return job
    if job.target.kind is TargetKind.FOREIGN:
        job = job._replace(words=tuple(words), detached=ctx.info_name == "start")
        kind_of(job.target.prefix).check(job)  # says what is wrong with the words, or shows the help
        return job
    inner = service_command(job)
    try:
        params = inner.make_context(f"{ctx.command_path} {ctx.params['target']}", list(words)).params
    except click.NoSuchOption as error:
        if any(error.option_name in param.opts for param in ctx.command.params):
            remedy = f"it is one of Tamed's own, which stand before {ctx.params['target']!r}"
            raise UsageError(f"option {error.option_name!r} is not of the service", remedy=remedy) from None
        raise
    given = {service.name: given_flags(service.options, params, service.prefix) for service in services(job)}
    return Job(job.target, job.daemon, job.log, given, job.plugin_dirs)


def _job(params: Mapping[str, Any]) -> Job:
    daemon, log = (given_flags(options, params, prefix) for prefix, options in DAEMON_OPTIONS)
    trust_if_told(daemon)
    dirs = folders(params["plugin_dirs"])
    return Job(resolve(params["target"], dirs), daemon, log, plugin_dirs=dirs)


class _TargetType(click.ParamType[str]):
    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of plugins, without importing any, and files that can be targets."""
        try:
            plugins = [
                CompletionItem(name)
                for name in names(folders(ctx.params.get("plugin_dirs") or ()))
                if name.startswith(incomplete)
            ]
        except TamedError:  # a plugin folder that cannot be read
            plugins = []
        return [*plugins, CompletionItem(incomplete, type="file")]


class _WordType(click.ParamType[str]):
    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete what stands behind the target."""
        return _complete_word(ctx, incomplete)


def _complete_word(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    try:
        inner = service_command(_job(ctx.params))
    except TamedError:  # there is no such target, or not yet
        return []
    return ShellComplete(inner, {}, "", "").get_completions(list(ctx.params.get("words") or ()), incomplete)
