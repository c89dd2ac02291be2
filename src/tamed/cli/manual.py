"""Manual pages, made from the declarations of the commands and of the options of a deployment file.

The build of the package writes them, so they are never older than the program. They are in man(7), and have
no date: the same source always makes the same pages.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tamed._version import __version__
from tamed.cli.commands import COMMANDS, TAMED
from tamed.cli.grammar import Command
from tamed.cli.help import term_of, usage
from tamed.config.settings import Daemon, Log
from tamed.plugins.describe import Option, describe

__all__ = ["pages", "write_pages"]

_ABOUT = """
A TOML file that lists the services to run together, and their options. Relative paths in it start in its
folder. An unknown key is an error.

A table [services.NAME] is a service of that name. It has the key plugin, with the name of a plugin, and that
plugin's options; or the key application, with an application file or PACKAGE.MODULE:VARIABLE. The key name at
the top is the name of the application.

An option on the command line overrides the environment, and that overrides the file.
"""
_EXAMPLE = """\
name = "verse"

[daemon]
workers = 2
user = "verse"

[log]
level = ["info", "tamed.net=debug"]

[services.ecstasy]
plugin = "fastpoetry"
poem = "poetry/ecstasy.txt"
port = 10000
"""


def pages() -> dict[str, str]:
    """Return the pages by their file names: ``tamed.1``, one for each command, and ``tamed.toml.5``."""
    made = {"tamed.1": _page("tamed", 1, TAMED.summary, _of_tamed())}
    for command in COMMANDS:
        name = f"tamed-{command.name}"
        made[f"{name}.1"] = _page(name, 1, command.summary, _of_command(command, f"tamed {command.name}"))
    made["tamed.toml.5"] = _page("tamed.toml", 5, "Deployment file of tamed.", _of_deployment())
    return made


def write_pages(folder: Path) -> list[Path]:
    """Write all pages into a folder, which is made if it is missing; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
        written.append(folder / name)
    return written


def _page(name: str, section: int, summary: str, body: Iterable[str]) -> str:
    title = _escaped(name.upper())
    purpose = _escaped(summary[0].lower() + summary[1:].rstrip("."))
    head = [f'.TH "{title}" {section} "" "tamed {__version__}" "Tamed"']
    head += [".SH NAME", rf"{_escaped(name)} \- {purpose}"]
    return "\n".join([*head, *body, ""])


def _of_tamed() -> Iterator[str]:
    yield from _of_command(TAMED, "tamed")
    yield ".SH COMMANDS"
    for command in COMMANDS:
        yield from _item(rf"\fBtamed\-{_escaped(command.name)}\fR(1)", command.summary)
    yield ".SH SEE ALSO"
    yield _lead(r"\fBtamed.toml\fR(5)")


def _of_command(command: Command, path: str) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield _lead(rf"\fB{_escaped(path)}\fR{_escaped(usage(command, path).removeprefix(path))}")
    yield ".SH DESCRIPTION"
    for paragraph in (command.summary, *command.paragraphs()):
        yield from (".PP", _text(paragraph))
    options = command.all_options()
    for section in dict.fromkeys(option.section for option in options):
        yield f'.SH "{_escaped(section.upper())}"'
        for option in options:
            if option.section == section:
                facts = f" [{'; '.join(option.facts)}]" if option.facts else ""
                yield from _item(rf"\fB{_escaped(term_of(option))}\fR", option.help + facts)
    if command.examples:
        yield ".SH EXAMPLES"
        for line, what in command.examples:
            yield from _item(rf"\fB{_escaped(line)}\fR", what)
    if command is not TAMED:
        yield ".SH SEE ALSO"
        yield _lead(r"\fBtamed\fR(1), \fBtamed.toml\fR(5)")


def _of_deployment() -> Iterator[str]:
    yield ".SH DESCRIPTION"
    for paragraph in _ABOUT.split("\n\n"):
        yield from (".PP", _text(" ".join(paragraph.split())))
    for title, kind in (("[daemon]", Daemon), ("[log]", Log)):
        yield f'.SH "{title.upper()}"'
        for option in describe(kind):
            yield from _item(rf"\fB{_escaped(option.key)}\fR", _described(option))
    yield from (
        ".SH EXAMPLE",
        ".PP",
        ".nf",
        *(_lead(_escaped(line)) for line in _EXAMPLE.splitlines()),
        ".fi",
    )
    yield ".SH SEE ALSO"
    yield _lead(r"\fBtamed\fR(1), \fBtamed\-check\fR(1), \fBtamed\-schema\fR(1)")


def _described(option: Option) -> str:
    return f"{option.help} [default: {option.default_text}]" if option.default_text else option.help


def _item(term: str, text: str) -> Iterator[str]:
    yield from (".TP", _lead(term), _text(text) if text else r"\&")


def _text(text: str) -> str:
    """Return a paragraph, with what is in backquotes in bold."""
    return _lead(re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _escaped(text)))


def _escaped(text: str) -> str:
    """Return text in which no character is a command of roff, and a minus sign stays one."""
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")


def _lead(line: str) -> str:
    return rf"\&{line}" if line.startswith((".", "'")) else line
