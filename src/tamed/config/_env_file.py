"""Environment files: lines of ``KEY=VALUE``, as systemd and Docker have them."""

import re
from pathlib import Path

from tamed._trust import require_trusted
from tamed.errors import ConfigurationError, from_os_error

__all__ = ["read_env_file"]

_LINE = r"(?:export\s+)?([A-Za-z_]\w*)=(.*)"


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of an environment file.

    Empty lines and those that begin with ``#`` say nothing, and ``export`` before a name is allowed, so that
    a shell can read the same file. A value that stands in quotes is what is between them; nothing in it is
    expanded. Raises MissingInput or PermissionRefused if the file cannot be read, and ConfigurationError,
    which names the line, never its value, for one that is none of this.
    """
    require_trusted(path, "environment file")
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise from_os_error(
            f"cannot read the environment file {path}", error, "name a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), f"byte {error.start} is not UTF-8", "save it as UTF-8") from error
    variables = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        found = re.fullmatch(_LINE, line, re.ASCII)
        if found is None:
            raise ConfigurationError(f"{path}:{number}", "expected KEY=VALUE")
        variables[found[1]] = _unquoted(found[2].strip())
    return variables


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if is_quoted else value
