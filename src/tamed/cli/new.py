"""``tamed new``: a package with a service, a plugin, tests and a deployment, written from templates."""

import json
import keyword
import re
import sys
import tempfile
from collections.abc import Collection, Mapping
from importlib.metadata import Distribution, distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from tamed._version import __version__
from tamed.errors import CannotCreate, UsageError, from_os_error
from tamed.plugins.discovery import names

__all__ = ["new", "requirement_of", "write_package"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLACEHOLDER = re.compile(r"@([A-Z]+)@")
_RESERVED = {"tamed", "test", "tests"}
_OTHER_NAME = "choose another name"
_OTHER = f"{_OTHER_NAME}, or remove it"


def new(name: str) -> None:
    """Write a package."""
    count = write_package(name, Path(), requirement_of(distribution("tamed")), taken=names(()))
    print(f"wrote {count} files; next: cd {name} && make test")


def write_package(name: str, parent: Path, requirement: str, taken: Collection[str] = ()) -> int:
    """Write a package into a folder of its name in ``parent``, all or nothing; return the number of files.

    ``requirement`` is the requirement of Tamed for pip, and ``taken`` are the names of existing plugins. The
    folder may exist if it is empty. Raises UsageError for a name that is not valid for a package, a module
    and a plugin, CannotCreate, or the error of `from_os_error`.
    """
    words = {
        "NAME": _checked(name, taken),
        "MODULE": _module(name),
        "TAMED": requirement,
        "VERSION": __version__,
    }
    folder = parent / name
    try:
        # In the same parent, so that one rename moves it to its place.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as scratch:
            made = Path(scratch, name)
            count = _copy(files("tamed.cli") / "_template", made, words)
            made.rename(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise CannotCreate(f"cannot write {folder}", "there is a file of this name", _OTHER) from error
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise CannotCreate(f"cannot write {folder}", "the folder is not empty", _OTHER) from error
        raise from_os_error(f"cannot write {folder}", error) from error
    return count


def _copy(source: Traversable, target: Path, words: Mapping[str, str]) -> int:
    """Copy a folder of templates and fill in the placeholders; return the number of files."""
    target.mkdir()
    count = 0
    for entry in source.iterdir():
        name = entry.name.replace("MODULE", words["MODULE"]).replace("NAME", words["NAME"])
        if entry.is_dir():
            count += _copy(entry, target / name, words)
        else:
            text = _PLACEHOLDER.sub(lambda found: words[found[1]], entry.read_text("utf-8"))
            (target / name.removesuffix(".txt")).write_text(text, "utf-8")
            count += 1
    return count


def requirement_of(installed: Distribution) -> str:
    """Return the pip requirement for the installed distribution: by version, or by URL (PEP 610).

    It has the URL if the distribution came from a folder, a file or a repository, not from an index.
    """
    text = installed.read_text("direct_url.json")
    if text is None:
        return f"{installed.name}>={installed.version}"
    origin = json.loads(text)
    url = origin["url"]
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"{installed.name} @ {url}"


def _checked(name: str, taken: Collection[str]) -> str:
    what = f"package name {name!r}"
    if not _NAME.fullmatch(name):
        example = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        remedy = f"try {example!r}" if _NAME.fullmatch(example) else "try 'poemhour'"
        raise UsageError(what, "expected lower-case letters, digits and single dashes", remedy)
    module = _module(name)
    if module in _RESERVED or module in sys.stdlib_module_names or keyword.iskeyword(module):
        raise UsageError(what, f"{module!r} is reserved by Python or Tamed", _OTHER_NAME)
    if name in taken:
        raise UsageError(what, "there is a plugin of this name already", _OTHER_NAME)
    return name


def _module(name: str) -> str:
    return name.replace("-", "_")
