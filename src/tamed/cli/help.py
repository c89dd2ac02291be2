"""The help page of a command, made from its declaration, in the width of the terminal."""

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from textwrap import wrap

from tamed.cli.grammar import Command, Option

__all__ = ["help_page", "term_of", "usage"]

_WIDEST = 100  # columns: longer lines are hard to read
_NARROWEST = 50
_LONGEST_TERM = 30  # columns; the explanation of a longer term begins on the next line

_wrap = partial(wrap, break_long_words=False, break_on_hyphens=False)


def help_page(command: Command, path: str, commands: Sequence[Command] = ()) -> str:
    """Return the help page of a command; ``path`` is its name as typed, ``commands`` are its subcommands."""
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    return "\n".join(_lines(command, path, commands, width))


def usage(command: Command, path: str) -> str:
    """Return the usage line: ``tamed scale [OPTIONS] COUNT [NAME]``."""
    arguments = (
        (each.metavar if each.required else f"[{each.metavar}]") + ("..." if each.repeatable else "")
        for each in command.arguments
    )
    options = "[OPTIONS]" if command.has_help else ""
    return " ".join(filter(None, (path, options, *arguments, command.rest)))


def term_of(option: Option) -> str:
    """Return an option as it is listed: ``-p, --port NUMBER``, ``--loud / --no-loud``."""
    flags = f"{', '.join(option.flags)} {option.metavar}".rstrip()
    return f"{flags} / {', '.join(option.off_flags)}" if option.off_flags else flags


def _lines(command: Command, path: str, commands: Sequence[Command], width: int) -> Iterator[str]:
    yield from _wrap(usage(command, path), width, initial_indent="Usage: ", subsequent_indent=" " * 7)
    for paragraph in (command.summary, *command.paragraphs()):
        yield ""
        yield from _wrapped(paragraph, width, "  ")
    if command.examples:
        yield from ("", "  Examples:")
        longest = max((len(line) for line, what in command.examples if what), default=0)
        for line, what in command.examples:
            yield f"    {line:{longest}}  {what}".rstrip()
    options = command.all_options()
    for section in dict.fromkeys(option.section for option in options):
        yield from ("", f"{section}:")
        yield from _table(
            [(term_of(option), _explanation(option)) for option in options if option.section == section],
            width,
        )
    if commands:
        yield from ("", "Commands:")
        yield from _table([(each.name, each.summary) for each in commands], width)


def _explanation(option: Option) -> str:
    return f"{option.help}  [{'; '.join(option.facts)}]" if option.facts else option.help


def _table(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield two columns; a term that is too long for the first column has its own line."""
    column = 4 + max((len(term) for term, _ in rows if len(term) <= _LONGEST_TERM), default=0)
    for term, text in rows:
        first, *more = _wrapped(text, width, " " * column) or [""]
        if len(term) + 4 <= column:
            yield f"  {term}{first[len(term) + 2 :]}".rstrip()
        else:
            yield from (f"  {term}", first)
        yield from more


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return _wrap(text, width, initial_indent=indent, subsequent_indent=indent)
