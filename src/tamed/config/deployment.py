"""Deployment files: the services of a run, and their options."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from tamed._os.text import did_you_mean
from tamed._os.trust import require_trusted
from tamed.errors import ConfigurationError, Errors, UsageError, from_os_error
from tamed.service.role import Scope

__all__ = ["Deployment", "Entry", "read_env_file"]

_LINE = r"(?:export\s+)?([A-Za-z_]\w*)=(.*)"  # of an environment file
_TABLES = ("daemon", "log", "services")


class Entry(NamedTuple):
    """One service of a deployment: a plugin with its options, or an application.

    ``only`` is the scope of a service of which one instance runs at a time, see `Service`.
    """

    name: str
    plugin: str | None
    application: str | None
    table: Mapping[str, object]
    only: Scope = ""


class Deployment(NamedTuple):
    """A parsed deployment file; the tables of options are not validated yet.

    Relative paths in it start in ``folder``: the file's folder, with all links resolved when it was read.
    ``text`` is the text of the file.
    """

    file: Path
    name: str
    daemon: Mapping[str, object]
    log: Mapping[str, object]
    services: tuple[Entry, ...]
    folder: Path
    text: str

    def only(self, names: Collection[str]) -> "Deployment":
        """Return a deployment with these services only, or itself if ``names`` is empty.

        Raises UsageError if it has no service of a name.
        """
        known = [each.name for each in self.services]
        for name in names:
            if name not in known:
                remedy = did_you_mean(name, known, f"known services: {', '.join(known)}")
                raise UsageError(f"--service {name}", f"{self.file} has no service of this name", remedy)
        if not names:
            return self
        return self._replace(services=tuple(each for each in self.services if each.name in names))

    def to_data(self) -> dict[str, str]:
        """Return it as plain data: its text, because TOML has types of value that JSON lacks."""
        return {"file": str(self.file), "folder": str(self.folder), "text": self.text}

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> "Deployment":
        """Return the deployment that `to_data` was called on; no file is read."""
        return cls.parse(data["text"], Path(data["file"]))._replace(folder=Path(data["folder"]))

    @classmethod
    def read(cls, file: Path) -> "Deployment":
        """Read a deployment file.

        Raises MissingInput or PermissionRefused if it cannot be read, and ConfigurationError, with line and
        column or the key, if it is not TOML or not a deployment.
        """
        return cls.parse(_text_of(file, "deployment file"), file)

    @classmethod
    def parse(cls, text: str, file: Path) -> "Deployment":
        """Parse the text of a deployment file; ``file`` is its name in messages."""
        import tomllib  # lazy import: most targets are no deployment files

        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _not_toml(error, text, file) from error
        except (ValueError, RecursionError) as error:  # too long a number, or tables nested too deeply
            raise ConfigurationError(str(file), f"cannot parse it as TOML: {error}") from error
        errors = Errors()
        for key in tables:
            if key not in ("name", *_TABLES):
                remedy = did_you_mean(key, ("name", *_TABLES), "known keys: name, daemon, log, services")
                errors.add(ConfigurationError(str(file), f"unknown key {key!r}", remedy))
        name = tables.get("name", file.stem)
        if not isinstance(name, str) or not name:
            errors.add(ConfigurationError(f"{file}: name", f"expected a text, got {name!r}"))
        found: dict[str, Mapping[str, object]] = {key: {} for key in _TABLES}
        for key in _TABLES:
            with errors:
                found[key] = _table(tables, key, file)
        entries = []
        for service in found["services"]:
            with errors:
                entries.append(_entry(service, _table(found["services"], service, file, "services."), file))
        errors.raise_first()
        if not entries:
            remedy = 'add one: [services.NAME] with plugin = "fastpoetry", for example'
            raise ConfigurationError(str(file), "it names no services", remedy)
        folder = file.resolve().parent
        return cls(file, name, found["daemon"], found["log"], tuple(entries), folder, text)


def _text_of(file: Path, what: str) -> str:
    require_trusted(file, what)
    try:
        return file.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise from_os_error(f"cannot read the {what} {file}", error, "use a readable file") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(file), f"byte {error.start} is not UTF-8", "save it as UTF-8") from error


def _table(tables: Mapping[str, object], key: str, file: Path, above: str = "") -> Mapping[str, object]:
    value = tables.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file}: {above}{key}", "expected a table", f"write [{above}{key}]")
    return value


def _entry(name: str, table: Mapping[str, object], file: Path) -> Entry:
    where = f"{file}: services.{name}"
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ConfigurationError(where, f"{name!r} is not a valid name", "use letters, digits, - and _")
    rest: dict[str, Any] = dict(table)
    only = _scope(rest.pop("only", ""), f"{where}.only")
    made_from = {key: rest.pop(key) for key in ("plugin", "application") if key in table}
    for key, value in made_from.items():
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{where}.{key}", f"expected a text, got {value!r}")
    if len(made_from) != 1:
        why = "it has both plugin and application" if made_from else "it names no plugin"
        raise ConfigurationError(where, why, 'write plugin = "NAME", or application = "FILE.py"')
    application = made_from.get("application")
    if application is not None and rest:
        known = "an application takes no options"
        raise ConfigurationError(where, f"unknown key {next(iter(rest))!r}", known)
    return Entry(name, made_from.get("plugin"), application, rest, only)


def _scope(value: object, where: str) -> Scope:
    if value not in get_args(Scope):
        raise ConfigurationError(where, f"expected 'host' or 'cluster', got {value!r}", "or leave it out")
    return cast("Scope", value)


def _not_toml(error: ValueError, text: str, file: Path) -> ConfigurationError:
    # Python 3.14 has the place in attributes; before, it is at the end of the message.
    message = str(error)
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is not None:
        line, column = place.groups()
        message = message[: place.start()]
    else:
        message = message.removesuffix(" (at end of document)")
        lines = text.splitlines() or [""]
        line, column = str(len(lines)), str(len(lines[-1]) + 1)
    return ConfigurationError(f"{file}:{line}:{column}", f"not TOML: {message[:1].lower()}{message[1:]}")


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of an environment file.

    Empty lines and lines that begin with ``#`` are ignored. ``export`` before a name is allowed, so a shell
    can read the same file. Quotes around a value are removed; nothing in it is expanded. Raises MissingInput
    or PermissionRefused if the file cannot be read, and ConfigurationError, with the line number but without
    the value, for an invalid line.
    """
    variables = {}
    for number, line in enumerate(map(str.strip, _text_of(path, "environment file").splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(_LINE, line, re.ASCII)
        if found is None:
            raise ConfigurationError(f"{path}:{number}", "expected KEY=VALUE")
        if "\0" in line:
            raise ConfigurationError(f"{path}:{number}", "a variable cannot contain a zero byte")
        variables[found[1]] = _unquoted(found[2].strip())
    return variables


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if is_quoted else value
