"""The grammar of the command line: the declarations of commands, and the parser.

A command is declared once, as data: the parser, the help page (`help`), the completion (`completion`) and the
test of the documentation read the same declaration. The syntax is that of getopt_long(3): ``--flag value``,
``--flag=value``, ``-f value``, ``-fvalue``, short flags without a value run together, and ``--`` before words
that only look like flags. Long flags cannot be abbreviated: a script with an abbreviation would break when a
new flag makes it ambiguous.

The classes of the declarations are plain ones: completion runs at each press of a key, and as named tuples
they would load `typing`, which takes as long as the interpreter itself.

A library for it, `click`, cost every command 55 million instructions (Valgrind, Python 3.11; the interpreter
alone takes 40), and for ``tamed run`` there was a second parser that bypassed it.
"""

from __future__ import annotations

from itertools import compress

from tamed._os.text import listed, nearest
from tamed.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

__all__ = [
    "HELP",
    "Argument",
    "Command",
    "CommandLine",
    "Option",
    "UnknownOption",
    "one_of",
    "parse",
    "path_word",
    "whole_number",
]


class Option:
    """An option of a command, or of its target.

    ``flags`` are all its spellings, and ``off_flags`` the spellings that set a switch to False. ``metavar``
    is the placeholder for its value; an option without one is a switch, and has no value. ``read`` converts
    the word to the value, and raises ValueError for a wrong word; by default, the word must be one of the
    ``choices``, or not be blank if it is a FOLDER.

    Values are kept under ``name``, by default that of the last flag, in one table for each ``group``. An
    option without a group that is not given has its ``default``; an option with a group is then absent.

    ``complete`` is the kind of completion of the value, as in `Argument`. On the help page, ``facts`` are in
    brackets, with the default and ``env``, the environment variable; ``section`` is the heading.
    """

    def __init__(
        self,
        flags: str,
        help: str,  # noqa: A002 - the word for it everywhere
        metavar: str = "",
        *,
        name: str = "",
        off_flags: tuple[str, ...] = (),
        repeatable: bool = False,
        group: str = "",
        default: object = None,
        read: Callable[[str], object] | None = None,
        choices: tuple[str, ...] = (),
        complete: str = "",
        env: str = "",
        facts: tuple[str, ...] = (),
        section: str = "Options",
    ) -> None:
        is_folder = metavar == "FOLDER"
        known = (f"default: {default}", "repeatable", f"env: {env}")
        self.flags = tuple(flags.split())
        self.name = name or self.flags[-1][2:].replace("-", "_")
        self.help = help
        self.metavar = metavar
        self.off_flags = off_flags
        self.repeatable = repeatable
        self.group = group
        self.default = default
        self.read = read or (path_word if is_folder else one_of(*choices) if choices else str)
        self.choices = choices
        self.complete = complete or ("folder" if is_folder else "")
        self.facts = (*facts, *compress(known, (default is not None, repeatable, env)))
        self.section = section


class Argument:
    """A positional argument. If it is not given, its value is None.

    Its word is read by ``read``, by default as one of the ``choices``, or as it is.
    ``complete`` is its kind of completion: ``file``, ``folder``, ``target``, ``instance``, ``running`` (an
    instance that runs), or ``command``. The last one may be ``repeatable``: its value is then a list.
    """

    def __init__(
        self,
        name: str,
        metavar: str,
        *,
        required: bool = True,
        read: Callable[[str], object] | None = None,
        choices: tuple[str, ...] = (),
        complete: str = "",
        repeatable: bool = False,
    ) -> None:
        self.name = name
        self.metavar = metavar
        self.required = required
        self.repeatable = repeatable
        self.read = read or (one_of(*choices) if choices else str)
        self.choices = choices
        self.complete = complete


class Command:
    """A command: ``handler`` is the function that is called with the values, as ``MODULE:FUNCTION``.

    ``summary`` is one line, ``about`` continues in paragraphs, and ``examples`` are command lines, each with
    a description. ``more_options`` is a function that makes the options that are slow to make, as
    ``MODULE:FUNCTION``. ``rest`` is the placeholder for the words after the last argument, which are not
    parsed here: the handler gets them as ``words``. ``hint`` names the right place for an unknown option.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        handler: str = "",
        about: str = "",
        examples: tuple[tuple[str, str], ...] = (),
        *,
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        more_options: str = "",
        rest: str = "",
        hint: str = "",
        has_help: bool = True,
    ) -> None:
        self.name = name
        self.summary = summary
        self.handler = handler
        self.about = about
        self.examples = examples
        self.arguments = arguments
        self.options = options
        self.more_options = more_options
        self.rest = rest
        self.hint = hint
        self.has_help = has_help

    def paragraphs(self) -> list[str]:
        """Return the paragraphs of ``about``, each as one line."""
        return [" ".join(paragraph.split()) for paragraph in self.about.split("\n\n") if paragraph.strip()]

    def all_options(self) -> tuple[Option, ...]:
        """Return all options, with those of ``more_options`` and ``--help``."""
        more: tuple[Option, ...] = ()
        if self.more_options:
            from tamed._os.variables import import_variable  # lazy import: most command lines do not need it

            more = import_variable(self.more_options)()
        return (*self.options, *more, *((HELP,) if self.has_help else ()))


HELP: Final = Option("-h --help", "Show this message and exit.")
"""The option of every command with ``has_help``."""


class UnknownOption(UsageError):
    """The command has no option with this ``flag``."""

    flag = ""


def parse(command: Command, words: Sequence[str], path: str) -> dict[str, Any] | None:
    """Parse the words after a command; return the values by name, or None if the words ask for help.

    ``path`` is the command as it was typed, for messages. Raises UsageError, with a remedy.
    """
    line = CommandLine(command, path)
    for word in words:
        line.take(word)
        if line.wants_help:
            return None
    return line.finish()


class CommandLine:
    """A command line, parsed word by word, so that completion can ask for the possible next words."""

    def __init__(self, command: Command, path: str) -> None:
        self.command = command
        self.path = path
        self.options = command.all_options()
        self.given: dict[str, Any] = {}
        self.words: list[str] = []
        """The words after the last argument."""
        self.waiting: Option | None = None
        """The option whose value comes next."""
        self.takes_options = True
        self.wants_help = False
        self._waiting_flag = ""
        self._arguments = list(command.arguments)
        self._flags: dict[str, tuple[Option, bool]] = {}
        for option in self.options:
            self._flags |= dict.fromkeys(option.flags, (option, True))
            self._flags |= dict.fromkeys(option.off_flags, (option, False))
            if option.group:
                self.given.setdefault(option.group, {})
            elif option is not HELP:
                self.given[option.name] = [] if option.repeatable else option.default

    @property
    def argument(self) -> Argument | None:
        """The next argument."""
        return self._arguments[0] if self._arguments else None

    @property
    def is_in_rest(self) -> bool:
        """Whether the next word belongs to ``rest``, which is not parsed here."""
        return bool(self.command.rest) and not self._arguments and self.waiting is None

    def take(self, word: str) -> None:
        """Parse the next word. Raises UsageError for a word that is not allowed here."""
        if self.is_in_rest:
            self.words.append(word)
        elif self.waiting is not None:
            self._put(self.waiting, self._waiting_flag, word)
            self.waiting = None
        elif not self.takes_options or word == "-" or not word.startswith("-"):
            self._take_argument(word)
        elif word == "--":
            self.takes_options = False
        elif word.startswith("--"):
            self._take_long(word)
        else:
            self._take_short(word)

    def finish(self) -> dict[str, Any]:
        """Return the values by name. Raises UsageError if a value or an argument is missing."""
        if self.waiting is not None:
            raise self._error(f"option {self._waiting_flag!r} requires a value")
        for argument in self._arguments:
            if argument.required and argument.name not in self.given:
                raise self._error(f"missing argument {argument.metavar!r}")
            self.given.setdefault(argument.name, [] if argument.repeatable else None)
        return {**self.given, "words": self.words} if self.command.rest else self.given

    def _take_argument(self, word: str) -> None:
        if not self._arguments:
            raise self._error(f"unexpected argument {word!r}")
        argument = self._arguments[0]
        value = self._read(argument, argument.metavar, word)
        if argument.repeatable:
            self.given.setdefault(argument.name, []).append(value)
            return
        self.given[argument.name] = value
        self._arguments.pop(0)

    def _take_long(self, word: str) -> None:
        flag, equals, value = word.partition("=")
        option, is_on = self._find(flag)
        if option.metavar and equals:
            self._put(option, flag, value)
        elif equals:
            raise self._error(f"option {flag!r} takes no value")
        else:
            self._set_or_wait(option, flag, is_on)

    def _take_short(self, word: str) -> None:
        for at, letter in enumerate(word[1:], start=2):
            option, is_on = self._find(f"-{letter}")
            if option.metavar and word[at:]:
                self._put(option, f"-{letter}", word[at:])
                return
            self._set_or_wait(option, f"-{letter}", is_on)

    def _find(self, flag: str) -> tuple[Option, bool]:
        if flag in self._flags:
            return self._flags[flag]
        if near := nearest(flag, self._flags):
            remedy = f"did you mean {near!r}? `{self.path} --help` lists them"
        elif self.command.hint:
            remedy = f"{self.command.hint}; see `{self.path} --help`"
        else:
            remedy = f"`{self.path} --help` lists them"
        error = UnknownOption(f"unknown option {flag!r}", remedy=remedy)
        error.flag = flag
        raise error

    def _set_or_wait(self, option: Option, flag: str, is_on: bool) -> None:
        if option is HELP:
            self.wants_help = True
        elif option.metavar:
            self.waiting, self._waiting_flag = option, flag
        else:
            self._table(option)[option.name] = is_on

    def _put(self, option: Option, flag: str, word: str) -> None:
        value = self._read(option, flag, word)
        table = self._table(option)
        table[option.name] = [*table.get(option.name, ()), value] if option.repeatable else value

    def _table(self, option: Option) -> dict[str, Any]:
        table: dict[str, Any] = self.given[option.group] if option.group else self.given
        return table

    def _read(self, what: Option | Argument, name: str, word: str) -> object:
        try:
            return what.read(word)
        except ValueError as error:
            raise self._error(f"{name}: {error}") from error

    def _error(self, what: str) -> UsageError:
        return UsageError(what, remedy=f"see `{self.path} --help`")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a function that reads a whole number within bounds."""
    bounds = f"of at least {least}, of 18 digits at most" if most is None else f"from {least} to {most}"

    def read(word: str) -> int:
        is_number = word.isascii() and word.isdigit() and len(word) <= 18
        if not is_number or int(word) < least or (most is not None and int(word) > most):
            raise ValueError(f"expected a whole number {bounds}, got {word!r}")
        return int(word)

    return read


def path_word(word: str) -> str:
    """Read a path; refuse an empty one, which an unset shell variable may have left."""
    if not word.strip():
        raise ValueError(f"expected a path, got {word!r}")
    return word


def one_of(*words: str) -> Callable[[str], str]:
    """Return a function that reads one of several words."""

    def read(word: str) -> str:
        if word not in words:
            raise ValueError(f"expected {listed(words)}, got {word!r}")
        return word

    return read
