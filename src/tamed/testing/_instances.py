"""The daemons that a test has started."""

from contextlib import suppress
from pathlib import Path

from tamed.errors import Unavailable
from tamed.runner import run_directory, stop_instance

__all__ = ["end_instances"]

_PATIENCE = 30.0  # seconds for a daemon to stop, before it is ended at once


def end_instances(folder: Path) -> None:
    """End the daemons of a run directory that are still there."""
    for instance in run_directory(folder).running():
        with suppress(Unavailable):  # it has just ended by itself
            stop_instance(instance, timeout=_PATIENCE, force=True, progress=lambda _: None)
