"""Trusted files: those that decide which code runs, or which users may log in.

A user who can write a file that root executes or trusts can become root. A user who can write in its folder,
or in one above, can replace the file. sshd (StrictModes) and sudo refuse such files too.
"""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from tamed.errors import PermissionRefused

__all__ = ["TO_CREATE", "TO_READ", "TRUST_WRITABLE", "first_untrusted", "require_trusted"]

TO_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for open(2) of a new file in a folder in which another user can write."""

TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for open(2) of a file there: not of a link's target, and without waiting for the end of a pipe."""

TRUST_WRITABLE = "TAMED_TRUST_WRITABLE"
"""The environment variable that ``--trust-writable`` sets, for all processes of a daemon."""


def require_trusted(path: Path, what: str) -> None:
    """Raise PermissionRefused if this process is root and other users could change a file; warn if not root.

    The file, each folder above it and the targets of symbolic links among them must belong to root or to
    this process's user, and only their owner may write them. A folder with the sticky bit (``/tmp``) may be
    writable. Write permission of a group is refused for root only: other users often have a group of their
    own. A missing file is no error here. ``what`` names the file in the message. With `TRUST_WRITABLE` in the
    environment nothing is checked.
    """
    found = first_untrusted(path, (0, os.geteuid()))
    if found is None:
        return
    place, why = found
    if os.geteuid() == 0:
        remedy = f"chown root {place} && chmod go-w {place}, or pass --trust-writable"
        raise PermissionRefused(f"{what} {path}", f"{place} {why}, so others could become root", remedy)
    import logging  # not at the top: most files are fine

    logging.getLogger("tamed").warning("%s %s can be changed by others: %s %s", what, path, place, why)


def first_untrusted(
    path: Path, trusted: Collection[int], *, may_be_shared: bool = False
) -> tuple[Path, str] | None:
    """Return the first of a path and its parents that users other than ``trusted`` could change, and why.

    None if there is none, or the check is disabled: see `require_trusted`. ``may_be_shared`` allows the path
    itself to be a folder with the sticky bit.
    """
    if os.environ.get(TRUST_WRITABLE, "") not in ("", "0", "false", "no"):
        return None
    for place in _places(path):
        why = _why_not(place, trusted, is_file=place == path and not may_be_shared)
        if why:
            return place, why
    return None


def _places(path: Path) -> Iterator[Path]:
    """Yield a path and the folders above it, and the same for its target if there are symbolic links."""
    try:
        # Not `Path.resolve`, which before Python 3.13 raises RuntimeError for links that go in a circle.
        literal, real = Path(os.path.abspath(path)), Path(os.path.realpath(path))  # noqa: PTH100
    except FileNotFoundError:  # the current folder was removed
        return
    yield path
    seen = {literal}
    for place in (*literal.parents, real, *real.parents):
        if place not in seen:
            seen.add(place)
            yield place


def _why_not(place: Path, trusted: Collection[int], *, is_file: bool) -> str:
    """Return the reason why a place is not trusted; empty if it is."""
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
