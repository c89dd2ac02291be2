"""Starting a worker, or a helper: a fresh interpreter, with the descriptors that it has and no others.

This is where it is said which those are, whatever this process has open, or was left by the program that it
was before. A worker has its channel on descriptor 3 and its log on 4, what it prints goes to the supervisor
too, and its input is empty. It leads a session of its own, so it has no terminal: a Ctrl-C is
the supervisor's to see to, nothing can be typed into the shell of whoever started the daemon, and whatever a
worker starts can be ended with its process group.

Where the daemon runs as somebody else, the process is that user's before it executes anything: no code that
the user could have changed is run as root, and none is loaded.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from tamed._os.descriptors import close_all, place_descriptors
from tamed._os.fork import default_signals

__all__ = ["CHANNEL", "RECORDS", "spawn"]

CHANNEL = 3
RECORDS = 4
_FAILED = 71  # os.EX_OSERR


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

    ``become`` is called in the new process just before it executes the command: to be another user. Raises
    OSError if no process can be made. A command that cannot be run ends with status 71, and says why in its
    output. The caller has one thread.
    """
    # The wake-up descriptor for signals is shared with the child: one that came to the child before it
    # forgot our handlers would be told to us, and be lost to it.
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
        os.setsid()
        default_signals(ignored=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.fchdir(directory)
        place_descriptors({0: os.open(os.devnull, os.O_RDONLY), **descriptors})
        close_all(descriptors)
        become()
        os.execve(command[0], list(command), dict(environ))
    except BaseException as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(_FAILED)
