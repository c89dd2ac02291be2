"""Building options: an instance of an options class, from four sources.

The command line overrides the environment, the environment the deployment file, and the file the default.
A source that is overridden is not read. Collections are not merged: a ``--listen`` on the command line
replaces every ``listen`` of the file.

A text in a deployment file may have references to variables: ``${NAME}``. Every user of the machine can see a
secret on a command line, and everyone with read access to a deployment file can see one in it. So the value
of a secret option may name the source of the secret: ``file:PATH``, ``credential:NAME`` (systemd.exec(5),
``LoadCredential=``) or ``env:NAME``. With ``prompt:``, the command asks for the secret on the terminal.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from tamed._os.secrets import SECRETS
from tamed._os.text import did_you_mean, listed
from tamed.errors import ConfigurationError, Errors, TamedError, UsageError, reason
from tamed.plugins._readers import InvalidValue, Source
from tamed.plugins.describe import Option, describe

__all__ = ["PLACES", "PROMPT", "Given", "build", "expanded", "named_in", "referenced_secret"]

O = TypeVar("O")  # noqa: E741 - an options class

PLACES: Final = ("file:", "credential:", "env:")
"""The prefixes of a reference to a secret."""

PROMPT: Final = "prompt:"
"""The value that makes the command ask for the secret."""

_VARIABLE: Final = r"\$\$|\$\{([^{}]*)\}"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_LONGEST: Final = 65536  # bytes of a secret
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"

_NOTHING: Final[Mapping[str, Any]] = {}


class Given(NamedTuple):
    """The values given for one service's options, not yet read, as plain data.

    Everything except the folders can be written as JSON and read back, so a process can pass it to another.
    """

    service: str = ""
    """The service's name, which is part of the names of its environment variables."""
    flags: Mapping[str, object] = _NOTHING
    """The flags that were given, by ``Option.name``: a text; for a repeatable option a list of texts; for a
    boolean one True or False. Other flags are absent."""
    environ: Mapping[str, str] = _NOTHING
    """The whole environment, or the relevant part of it. Lists are split at commas."""
    table: Mapping[str, object] = _NOTHING
    """The service's table in the deployment file, with the keys of the plugin only."""
    file: str = ""
    """The deployment file's name, for messages: ``verse.toml``; empty when there is none."""
    section: str = ""
    """The table's name in the file, for messages: ``services.ecstasy``."""
    flag_prefix: str = ""
    """The prefix of the name in each flag, for messages: ``log-`` in ``--log-level``."""
    flags_folder: Path | None = None
    """The folder that relative paths in flags and environment start in; None leaves them relative."""
    file_folder: Path | None = None
    """The folder that relative paths in the file start in; None leaves them relative."""
    answers: Mapping[str, str] = _NOTHING
    """The secrets typed at a prompt, by the variables of their options."""

    def __repr__(self) -> str:
        return f"<Given for {self.service or self.place}>"  # the rest may hold secrets

    @property
    def place(self) -> str:
        """The table's place, for messages: ``verse.toml: services.ecstasy``."""
        return ": ".join(filter(None, (self.file, self.section)))

    def flag(self, option: Option) -> str:
        """Return an option's flag with its prefix: ``--log-level``."""
        return f"--{self.flag_prefix}{option.key}"

    def key_place(self, key: str) -> str:
        """Return the place of a key of the table: ``verse.toml: services.ecstasy.port``."""
        return f"{self.place}.{key}" if self.section else ": ".join(filter(None, (self.file, key)))


def build(options_type: type[O], given: Given) -> O:
    """Make the options from the values given.

    Raises UsageError when the command line is wrong, and ConfigurationError when the environment or the
    deployment file is wrong; each names the flag, the variable or the key, and never shows a secret. Unknown
    keys are refused. A ValueError from the class itself (``__post_init__``, where options are checked
    against each other) becomes one of these two errors as well. If several values are wrong, the first
    error has the ``others``. Raises ApplicationFailed when the class is not a valid options class (see
    ``describe``).
    """
    options = describe(options_type)
    errors = Errors()
    _refuse_unknown_flags(options, given, errors)
    table = _known_keys(options, given, errors)
    values = {}
    for option in options:
        with errors:
            value = _value(option, given, table)
            if value is not _ABSENT:
                values[option.name] = value
    errors.raise_first()
    try:
        return options_type(**values)
    except ValueError as error:
        what = f"options of {given.service}" if given.service else "options"
        raise _blame(given)(given.place or what, str(error)) from error


_ABSENT: Any = object()


def _value(option: Option, given: Given, table: Mapping[str, object]) -> Any:
    """Read the option from the first source that has it."""
    variable = option.variable(given.service)
    text = Source(True, given.flags_folder, given.environ, given.answers.get(variable))
    if option.name in given.flags:
        where, flag = given.flag(option), given.flags[option.name]
        if option.secret:
            _refuse_visible(flag, where)
        return _read(option, flag, text, UsageError, where)
    if option.env and variable in given.environ:
        return _read(option, given.environ[variable], text, ConfigurationError, variable)
    if option.name in table:
        source, where = text._replace(text=False, folder=given.file_folder), given.key_place(option.key)
        value = _resolved(lambda: expanded(table[option.name], given.environ), ConfigurationError, where)
        return _read(option, value, source, ConfigurationError, where)
    if option.required:
        raise _missing(option, given, variable)
    return _ABSENT


def _refuse_visible(value: object, where: str) -> None:
    """Refuse a secret on the command line, where all users can see it; a reference to a secret is allowed."""
    for each in value if isinstance(value, list) else [value]:
        if each != PROMPT and not str(each).startswith(PLACES):
            why = "every user of this machine can read a secret on the command line"
            raise UsageError(where, why, "use prompt:, file:PATH, credential:NAME or env:NAME")


def _read(option: Option, value: object, source: Source, kind: type[TamedError], where: str) -> Any:
    if option.secret:
        value = _resolved(lambda: _secret(value, source), kind, where)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                SECRETS.remember(each)
    try:
        return option.reader.read(value, source)
    except InvalidValue as error:
        invalid = error
    # Raised outside the handler, so that the error's context does not contain the secret either.
    if option.secret:
        raise kind(where, f"expected {option.reader.expected}")
    at = "" if source.text else invalid.at
    raise kind(where + at, invalid.why, _unquote(option, value, source)) from invalid


def _secret(value: Any, source: Source) -> Any:
    """Return the value of a secret option, with each reference replaced by the secret."""
    match value:
        case str() if value == PROMPT:
            if source.answer is None:
                raise ValueError("there was no prompt for it; use file:PATH, credential:NAME or env:NAME")
            return source.answer
        case str():
            found = referenced_secret(value, source.environ, source.folder)
            return value if found is None else found
        case list():
            return [_secret(each, source) for each in value]
        case _:
            return value


def _resolved(resolve: Callable[[], Any], kind: type[TamedError], where: str) -> Any:
    try:
        return resolve()
    except ValueError as error:
        raise kind(where, str(error)) from None


def _unquote(option: Option, value: object, source: Source) -> str:
    """Return the remedy for a number or a truth value in quotes in a file."""
    if source.text or not isinstance(value, str):
        return ""
    import tomllib

    try:
        option.reader.read(tomllib.loads(f"value = {value}")["value"], source)
    except (ValueError, RecursionError):  # not TOML, too deep or too long for it, or invalid too
        return ""
    return "write it without quotes"


def _refuse_unknown_flags(options: tuple[Option, ...], given: Given, errors: Errors) -> None:
    """Refuse unknown flags, which a process with another version of the plugin may have accepted."""
    known = {option.name: option for option in options}
    for name in given.flags:
        if name not in known:
            flag = f"--{given.flag_prefix}{name.strip('_').replace('_', '-')}"
            flags = [given.flag(option) for option in options]
            remedy = did_you_mean(flag, flags, _all("flags", flags))
            errors.add(UsageError(f"unknown option {flag}", remedy=remedy))


def _known_keys(options: tuple[Option, ...], given: Given, errors: Errors) -> Mapping[str, object]:
    """Return the table by the options' names; refuse unknown keys, and a key given in both spellings."""
    names = {spelling: option for option in options for spelling in (option.key, option.name)}
    table: dict[str, object] = {}
    for key, value in given.table.items():
        if key not in names:
            keys = [option.key for option in options]
            remedy = did_you_mean(key, keys, _all("keys", keys))
            errors.add(ConfigurationError(given.place, f"unknown key {key!r}", remedy))
            continue
        option = names[key]
        if option.name in table:
            why = f"it is set twice, also as {option.name!r}"
            errors.add(ConfigurationError(given.key_place(option.key), why))
        table[option.name] = value
    return table


def _all(what: str, words: list[str]) -> str:
    return f"known {what}: {', '.join(words)}" if words else "it has no options"


def _missing(option: Option, given: Given, variable: str) -> TamedError:
    ways = [f"give {given.flag(option)} {option.metavar}".strip()]
    if option.env:
        ways.append(f"set {variable}")
    ways.append(f"write {option.key!r} in the deployment file")
    return _blame(given)(given.place or given.flag(option), f"{option.key!r} is required", listed(ways))


def _blame(given: Given) -> type[TamedError]:
    return ConfigurationError if given.file else UsageError


def expanded(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a value of a deployment file with ``${NAME}`` replaced in all its texts, and ``$$`` by ``$``.

    A variable is replaced by a text, which is not expanded again. Raises ValueError for a variable that is
    not set; its text names the variable, and contains no value.
    """
    match value:
        case str():
            return (
                re.sub(_VARIABLE, lambda found: _variable(found, environ), value) if "$" in value else value
            )
        case list():
            return [expanded(each, environ) for each in value]
        case Mapping():
            return {key: expanded(each, environ) for key, each in value.items()}
        case _:
            return value


def named_in(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the references in the texts of a value of a deployment file, each as a kind and a name.

    The kinds are ``${}`` for a variable, and those of `PLACES` for a secret.
    """
    match value:
        case str():
            yield from (("${}", found[1]) for found in re.finditer(_VARIABLE, value) if found[1] is not None)
            kind = next((place for place in PLACES if value.startswith(place)), None)
            if kind is not None:
                yield kind, value.removeprefix(kind)
        case list():
            for each in value:
                yield from named_in(each)
        case Mapping():
            for each in value.values():
                yield from named_in(each)


def referenced_secret(text: str, environ: Mapping[str, str], folder: Path | None = None) -> str | None:
    """Return the secret that a text refers to; None if it is no reference.

    A relative path starts in ``folder``. A newline at the end of a file is not part of the secret. Raises
    ValueError if the secret cannot be read, with the reason.
    """
    kind, colon, name = text.partition(":")
    match kind if colon else "":
        case "file":
            return _content(Path(name) if folder is None else folder / name)
        case "credential":
            if not (given := environ.get(_CREDENTIALS)):
                raise ValueError(f"there are no credentials: {_CREDENTIALS} is not set")
            if "/" in name or name in ("", ".", ".."):
                raise ValueError("expected the name of a credential, without a slash")
            return _content(Path(given, name))
        case "env":
            if name not in environ:
                raise ValueError(f"the environment variable {name} is not set")
            return environ[name]
        case _:
            return None


def _variable(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name = found[1]
    if name is None:
        return "$"
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{found[0]} is not the name of a variable; write $$ for a dollar sign")
    if name not in environ:
        raise ValueError(f"the environment variable {name} is not set; write $$ for a dollar sign")
    return environ[name]


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise ValueError(f"cannot read the secret {path}: {reason(error)}") from None
    if len(content) > _LONGEST:
        raise ValueError(f"the secret {path} has more than {_LONGEST} bytes")
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError(f"the secret {path} is not UTF-8") from None
