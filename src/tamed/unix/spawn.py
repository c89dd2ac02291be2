"""Spawning a worker or a helper: a new interpreter, with a fixed set of descriptors.

All other descriptors are closed, including those left by the previous program in this process. A worker has
its channel on descriptor 3 and its log on 4; its output goes to the supervisor too, and its input is empty.
It leads a session of its own, so it has no terminal: the supervisor handles Ctrl-C, a worker cannot inject
input into the operator's shell, and its child processes can be ended with its process group.

If the daemon runs as another user, the process becomes that user before it executes the command: root neither
runs nor loads code that the user could have changed.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from tamed._os.descriptors import close_all, place_descriptors
from tamed._os.fork import default_signals

__all__ = ["CHANNEL", "FAILED", "RECORDS", "STACKS", "become_child", "spawn"]

CHANNEL = 3
RECORDS = 4
STACKS = signal.SIGRTMIN + 7
"""At this signal a worker prints the stacks of its threads."""
FAILED = 71  # os.EX_OSERR
"""The status of a process that could not execute its command."""


def spawn(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    channel: int,
    records: int,
    output: int,
    directory: int,
    become: Callable[[], object] = lambda: None,
) -> int:
    """Run a command as a worker in an open directory, with copies of three descriptors; return its pid.

    ``become`` is called in the new process just before it executes the command, to change the user. Raises
    OSError if no process can be created. If the command cannot be executed, the process ends with status 71
    and prints the reason. The caller must have one thread only.
    """
    # The child shares the wake-up descriptor for signals: a signal that the child gets before it has reset
    # our handlers would be reported to us, and the child would lose it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            placed = {1: output, 2: output, CHANNEL: channel, RECORDS: records}
            _execute(command, environ, placed, directory, become)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _execute(
    command: Sequence[str],
    environ: Mapping[str, str],
    descriptors: Mapping[int, int],
    directory: int,
    become: Callable[[], object],
) -> NoReturn:
    try:
        become_child(descriptors, directory)
        become()
        os.execve(command[0], list(command), dict(environ))
    except BaseException as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(FAILED)


def become_child(descriptors: Mapping[int, int], directory: int) -> None:
    """Make a forked process independent of its parent.

    It leads a session of its own in an open directory, with the default action for each signal, an empty
    input, and copies of ``descriptors`` at the numbers that are their keys; all others are closed.
    """
    os.setsid()
    default_signals(ignored=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.fchdir(directory)
    place_descriptors({0: os.open(os.devnull, os.O_RDONLY), **descriptors})
    close_all(descriptors)
