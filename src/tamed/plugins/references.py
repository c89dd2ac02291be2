"""What a value refers to: ``${NAME}`` in a deployment file, and the place of a secret.

A secret that stands on a command line can be seen by every user of the machine, and one in a deployment file
by all who may read that file. So the value of a secret option may name the place where the secret is:
``file:PATH``, ``credential:NAME`` (systemd.exec(5), ``LoadCredential=``) or ``env:NAME``. Or it is
``prompt:``, and the person who starts the program is asked for the secret.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tamed.errors import reason

__all__ = ["PLACES", "PROMPT", "expanded", "named_in", "referenced_secret"]

PLACES: Final = ("file:", "credential:", "env:")
"""The beginnings of the text that refers to a secret."""

PROMPT: Final = "prompt:"
"""The text in place of a secret that is asked for."""

_VARIABLE: Final = re.compile(r"\$\$|\$\{([^{}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST: Final = 65536  # bytes of a secret
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


def expanded(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a value of a deployment file with ``${NAME}`` replaced in all its texts, and ``$$`` by ``$``.

    A variable is replaced by a text, which is not expanded again. Raises ValueError, which names the variable
    and never shows a value, if there is none of this name.
    """
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _variable(found, environ), value) if "$" in value else value
        case list():
            return [expanded(each, environ) for each in value]
        case Mapping():
            return {key: expanded(each, environ) for key, each in value.items()}
        case _:
            return value


def named_in(value: Any) -> Iterator[tuple[str, str]]:
    """Yield what the texts in a value of a deployment file refer to, as a kind and a name.

    The kinds are ``${}``, a variable that is part of a text, and those of `PLACES`, of a secret.
    """
    match value:
        case str():
            yield from (("${}", found[1]) for found in _VARIABLE.finditer(value) if found[1] is not None)
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
    ValueError, which says what cannot be read, and why.
    """
    kind, colon, name = text.partition(":")
    match kind if colon else "":
        case "file":
            return _content(Path(name) if folder is None else folder / name)
        case "credential":
            if not (given := environ.get(_CREDENTIALS)):
                raise ValueError(f"there are no credentials: {_CREDENTIALS} is not set")
            if "/" in name or name in ("", ".", ".."):
                raise ValueError("expected the name of a credential, which has no slash")
            return _content(Path(given, name))
        case "env":
            if name not in environ:
                raise ValueError(f"there is no variable {name} in the environment")
            return environ[name]
        case _:
            return None


def _variable(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name = found[1]
    if name is None:
        return "$"
    if not _NAME.fullmatch(name):
        raise ValueError(f"{found[0]} names no variable: write $$ for a dollar sign")
    if name not in environ:
        raise ValueError(f"there is no variable {name} in the environment; write $$ for a dollar sign")
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
