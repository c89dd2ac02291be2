"""Command-line options made from the descriptions of options, and what was given for them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from tamed.plugins.describe import Option

__all__ = ["Command", "given_flags", "make_option"]


class _Text(click.ParamType[str]):
    """A text that is passed on as it is: options are read and judged in one place, their own layer."""

    def __init__(self, option: Option) -> None:
        self.name = option.metavar or "text"
        self._option = option

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete choices, and let the shell complete paths."""
        if self._option.path:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(choice) for choice in self._option.choices if choice.startswith(incomplete)]


def make_option(
    option: Option, service: str = "", prefix: str = "", in_file: object = None, alias: str = ""
) -> click.Option:
    """Make the command-line option for a description.

    ``service`` is what its environment variable is named after, ``prefix`` stands before the name in the
    flag, ``in_file`` is what a deployment file says, to be shown in place of the default, and ``alias`` is
    another flag.
    """
    flag = f"--{prefix}{option.key}"
    declarations = [_dest(option, prefix), f"{flag}/--{prefix}no-{option.key}" if option.boolean else flag]
    if option.short and not prefix:
        declarations.append(option.short)
    if alias:
        declarations.append(alias)
    facts = list(_facts(option, service, in_file))
    help_text = f"{option.help}  [{'; '.join(facts)}]" if facts else option.help
    kind: dict[str, Any] = (
        {"is_flag": True} if option.boolean else {"type": _Text(option), "metavar": option.metavar}
    )
    return click.Option(declarations, help=help_text, default=None, multiple=option.repeatable, **kind)


def _facts(option: Option, service: str, in_file: object) -> Iterator[str]:
    if in_file is not None and not option.secret:
        yield f"file: {_written(in_file)}"
    elif option.default_text:
        yield f"default: {option.default_text}"
    if option.required and in_file is None:
        yield "required"
    if option.repeatable:
        yield "repeatable"
    if option.env:
        yield f"env: {option.variable(service)}"


def _written(value: object) -> str:
    """Write down what stands in a deployment file, briefly."""
    if isinstance(value, list):
        return ",".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def given_flags(
    options: Iterable[Option], params: Mapping[str, object], prefix: str = ""
) -> dict[str, object]:
    """Return what was given on the command line for these options, by their names."""
    flags: dict[str, object] = {}
    for option in options:
        value = params.get(_dest(option, prefix))
        if value not in (None, ()):
            flags[option.name] = list(value) if isinstance(value, tuple) else value
    return flags


def _dest(option: Option, prefix: str) -> str:
    """Return a name that click can use, and no other option has: services may be called a-b and a_b."""
    return re.sub("[^A-Za-z0-9_]", lambda found: f"_{ord(found[0]):x}_", f"p_{prefix}{option.name}")


class Command(click.Command):
    """A command that has ``-h`` too, is not squeezed into 80 columns, and knows its mistakes as its own."""

    def __init__(
        self, name: str | None, context_settings: dict[str, Any] | None = None, **attributes: Any
    ) -> None:
        ours = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        super().__init__(name, context_settings={**ours, **(context_settings or {})}, **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line; an error that does not say so is made to say which command it is of."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
