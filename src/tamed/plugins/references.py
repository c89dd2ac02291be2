"""References in values: ``${NAME}`` in a deployment file, and the sources of a secret.

Every user of the machine can see a secret on a command line, and everyone with read access to a deployment
file can see one in it. So the value of a secret option may name the source of the secret: ``file:PATH``,
``credential:NAME`` (systemd.exec(5), ``LoadCredential=``) or ``env:NAME``. With ``prompt:``, the command asks
for the secret on the terminal.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tamed.errors import reason

__all__ = ["PLACES", "PROMPT", "expanded", "named_in", "referenced_secret"]

PLACES: Final = ("file:", "credential:", "env:")
"""The prefixes of a reference to a secret."""

PROMPT: Final = "prompt:"
"""The value that makes the command ask for the secret."""

_VARIABLE: Final = r"\$\$|\$\{([^{}]*)\}"
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_LONGEST: Final = 65536  # bytes of a secret
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


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
