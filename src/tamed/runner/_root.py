"""A process that is root: without having been told to, or until it becomes another user."""

import os
from collections.abc import Mapping

from tamed.daemon import Identity

__all__ = ["AS_ROOT", "ROOT_FLAGS", "roots_environ", "stays_root"]

AS_ROOT = "running as root: name another user with --user, or root itself to say that it is meant"

ROOT_FLAGS = ("-E", "-s")
"""Flags of a Python that is root for another user: it heeds no ``PYTHON*`` variables and has no user site."""


def stays_root(user: str) -> bool:
    """Tell whether this process is root, and is not to become a user that somebody has named."""
    return not user and os.geteuid() == 0


def roots_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for such a Python: without those variables, and with root's own home."""
    own = Identity.resolve("0", "").environ_of(environ)
    return {name: value for name, value in own.items() if not name.startswith("PYTHON")}
