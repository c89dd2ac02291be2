"""Running as root without having been told to."""

import os

__all__ = ["AS_ROOT", "stays_root"]

AS_ROOT = "running as root: name another user with --user, or root itself to say that it is meant"


def stays_root(user: str) -> bool:
    """Tell whether this process is root, and is not to become a user that somebody has named."""
    return not user and os.geteuid() == 0
