"""Commands without an interpreter for each: a process that has loaded the command forks itself.

Most of what a command costs is an interpreter that starts and loads the same modules again. A fork is a
process of its own all the same, with the directory, the environment and the descriptors that a command would
have, and the daemon that it starts is executed as ever. What a command loads is the matter of
other tests.
"""

import atexit
import functools
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

_CHILD = Path(__file__).with_name("forked_child.py")

# What controls daemons. An application is run by an interpreter that has loaded nothing else.
_COMMANDS = {"logs", "reload", "reopen", "restart", "scale", "start", "status", "stop", "upgrade", "why"}

_OF_INTERPRETERS = ("LANG", "LC_", "PYTHON")  # what one reads from the environment when it starts


class Forking:
    """A process of ours that runs commands for us, each in a fork."""

    def __init__(self, before: Sequence[str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*before, sys.executable, _CHILD, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def run(self, words: Sequence[str], cwd: str | Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a command to its end; return its status, as `subprocess` has it, its output and its errors."""
        with ExitStack() as stack:
            pipes = [os.pipe() for _ in range(3)]
            for reader, _ in pipes:
                stack.callback(os.close, reader)
            with ExitStack() as given:
                for _, writer in pipes:
                    given.callback(os.close, writer)
                request = given.enter_context(tempfile.TemporaryFile("w+"))  # longer than a message may be
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # which a test may have changed meanwhile
                json.dump({"words": words, "cwd": str(cwd), "env": dict(env), "limit": limit}, request)
                request.seek(0)
                descriptors = [request.fileno(), *(writer for _, writer in pipes)]
                socket.send_fds(self._channel, [b"request"], descriptors)
            status, out, err = _contents([reader for reader, _ in pipes])
        return int(status), out, err

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(PATIENCE)


@functools.cache
def forking(before: tuple[str, ...]) -> Forking:
    """Return the process that this command starts, until the end of this process."""
    made = Forking(before)
    atexit.register(made.close)
    return made


def is_measured() -> bool:
    """Tell whether coverage is to measure what tests execute."""
    return any(name.startswith("COVERAGE_") for name in os.environ)


def can_fork(words: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Tell whether a fork shows the same of a command as an interpreter of its own."""
    given = {**os.environ, **options.get("env", {})}
    differs = {name for name in given if given[name] != os.environ.get(name)}
    return (
        words[0] in _COMMANDS
        and options.keys() <= {"cwd", "env"}
        and not is_measured()
        and not any(name.startswith(_OF_INTERPRETERS) for name in differs)
    )


def _contents(pipes: Sequence[int]) -> list[str]:
    """Read pipes to their ends, all at once, as any of them may become full."""
    found = dict.fromkeys(pipes, b"")
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            assert ready, "the command does not end"
            for key, _ in ready:
                if data := os.read(key.fd, 1 << 16):
                    found[key.fd] += data
                else:
                    selector.unregister(key.fd)
    return [data.decode() for data in found.values()]
