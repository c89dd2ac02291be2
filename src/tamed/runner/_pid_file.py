"""Holding a pid file while a process lives, also when it becomes somebody else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tamed.daemon as unix  # whole: a process without a pid file needs none of it

__all__ = ["held_pid_file"]


@contextmanager
def held_pid_file(path: Path, owner: tuple[int, int] | None) -> "Iterator[unix.PidFile]":
    """Hold a pid file inside the ``with``; see `PidFile.acquire` for what is raised.

    ``owner`` is the user and group that the process becomes. They get the file, because where others may make
    files too (``/tmp``) only its owner can remove it.
    """
    with unix.PidFile.acquire(path) as file:
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), *owner)
        yield file
