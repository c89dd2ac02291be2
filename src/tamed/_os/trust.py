"""Files that say what is run, or who may log in: nobody else may be able to write them.

Whoever can write a file that root executes or believes is root. Whoever can write the folder that it is in,
or one above, can put another file in its place. sshd (StrictModes) and sudo refuse such files too.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from tamed.errors import PermissionRefused

__all__ = ["TRUST_WRITABLE", "require_trusted", "who_else"]

TRUST_WRITABLE = "TAMED_TRUST_WRITABLE"
"""The environment variable that ``--trust-writable`` sets, for all processes of a daemon."""


def require_trusted(path: Path, what: str) -> None:
    """Raise PermissionRefused if this process is root and somebody else could change a file; else warn.

    The file, each folder above it and, where one of them is a symbolic link, what it leads to must belong to
    root, or to this process's user, and only their owner may write them. Of a folder in which only owners
    can remove files (``/tmp``, its sticky bit) that is not demanded. A group counts for root only: with
    others it is often their own. A file that does not exist is left to whoever opens it. ``what`` names the
    file in the message. With `TRUST_WRITABLE` in the environment nothing is looked at.
    """
    found = who_else(path, (0, os.geteuid()))
    if found is None:
        return
    place, why = found
    if os.geteuid() == 0:
        remedy = f"chown root {place} && chmod go-w {place}, or pass --trust-writable"
        raise PermissionRefused(f"{what} {path}", f"{place} {why}, who could become root by it", remedy)
    import logging  # not above: nothing is wrong with most files

    logging.getLogger("tamed").warning("%s %s can be changed by others: %s %s", what, path, place, why)


def who_else(path: Path, trusted: Collection[int], *, may_be_shared: bool = False) -> tuple[Path, str] | None:
    """Return the first of a path and the folders above it that others than ``trusted`` could change, and why.

    None if nobody could, or nobody is to ask: see `require_trusted`. ``may_be_shared`` says that the path
    itself may be a folder in which only owners can remove files.
    """
    if os.environ.get(TRUST_WRITABLE, "") not in ("", "0", "false", "no"):
        return None
    for place in _places(path):
        why = _why_not(place, trusted, is_file=place == path and not may_be_shared)
        if why:
            return place, why
    return None


def _places(path: Path) -> Iterator[Path]:
    """Yield a path, the folders above it, and the same of what it leads to if there are links on the way."""
    try:
        literal, real = Path(os.path.abspath(path)), path.resolve()  # noqa: PTH100 - links are kept
    except FileNotFoundError:  # the current folder is gone, with all that was in it
        return
    yield path
    seen = {literal}
    for place in (*literal.parents, real, *real.parents):
        if place not in seen:
            seen.add(place)
            yield place


def _why_not(place: Path, trusted: Collection[int], *, is_file: bool) -> str:
    """Say who else may change a file or what is in a folder; nothing if nobody may."""
    try:
        status = place.stat()
    except OSError:
        return ""
    if status.st_uid not in trusted:
        return f"belongs to user {status.st_uid}"
    is_kept = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not is_file
    if is_kept:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    if os.geteuid() == 0 and status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"can be written by group {status.st_gid}"
    return ""
