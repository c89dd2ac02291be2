"""The kernel's own settings, as Linux shows them below ``/proc/sys``."""

from pathlib import Path


def sysctl(name: str, root: Path = Path("/proc/sys")) -> int | None:
    """Return a number such as ``net.core.somaxconn``; None where there is none, as in some sandboxes.

    The ``net`` ones are those of this process's network namespace.
    """
    try:
        return int(root.joinpath(*name.split(".")).read_bytes())
    except (OSError, ValueError):
        return None
