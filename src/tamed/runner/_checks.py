"""What the user that a process becomes must be able to do, asked before anything is done."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tamed.errors import PermissionRefused

if TYPE_CHECKING:
    from tamed.daemon import Identity

__all__ = ["check_files", "check_interpreter"]


def check_files(identity: "Identity | None", *, log: str = "", pid_files: Iterable[str] = ()) -> None:
    """Refuse files that the user the process becomes could not rotate or remove, before anything is done.

    They are paths, empty for none.
    """
    for what, path in (("log file", log), *(("pid file", each) for each in pid_files)):
        folder = Path(path).parent
        if path and identity is not None and folder.is_dir() and not identity.can_write_in(folder):
            who = identity.name or identity.uid
            raise PermissionRefused(
                f"{what} {path}", f"user {who} cannot write in {folder}", f"give it to {who}, or name another"
            )


def check_interpreter(identity: "Identity | None") -> None:
    """Refuse a user who could not replace a worker, which is done without privilege."""
    if identity is None:
        return
    for path, can in (
        (Path(sys.executable), identity.can_run),
        (Path(os.__file__), identity.can_read),
        (Path(__file__), identity.can_read),
    ):
        if not can(path):
            who = identity.name or identity.uid
            raise PermissionRefused(
                f"user {who} cannot run this Python",
                f"{path} is out of reach for {who}, who could not replace a worker",
                f"install Python and Tamed where {who} can read them",
            )
