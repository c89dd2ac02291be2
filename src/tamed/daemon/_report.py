"""What a daemon says to the process that started it and waits: the message and its sender.

They go through a pipe, as lines of JSON, written by :class:`Reporter` and read by ``Launch``:

- ``{"pid": 123}``: the daemon exists;
- ``{"ready": true, "line": "..."}``: it serves; the line is for the person who started it;
- ``{"error": "...", "status": 69}``: it will end, with this exit status, for this reason.
"""

import json
import os
from typing import NamedTuple

__all__ = ["Report", "Reporter"]


class Report(NamedTuple):
    """What became of a daemon.

    ``text`` is for the person who started it: the daemon's line, or the whole reason, which may have
    several lines. ``status`` is the exit status for the command: 0 if it is ready.
    """

    ready: bool
    text: str
    status: int
    pid: int | None


class Reporter:
    """The daemon's end of the pipe.

    Its methods never raise, and do nothing once it is closed or nobody listens any more.

    To keep it across an exec, make :meth:`fileno` inheritable and build it anew from the number, which raises
    ``OSError`` if that is not open.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor of the pipe, -1 once it is closed. Nobody else may inherit it."""
        return self._descriptor

    def started(self, pid: int) -> None:
        """Say which process the daemon is."""
        self._tell({"pid": pid})

    def ready(self, line: str) -> None:
        """Say that the daemon serves, and close."""
        self._tell({"ready": True, "line": line})
        self.close()

    def failed(self, why: str, status: int) -> None:
        """Say that the daemon will end, why, and with which exit status, and close."""
        self._tell({"error": why, "status": status})
        self.close()

    def close(self) -> None:
        """Let the pipe go. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _tell(self, message: dict[str, object]) -> None:
        left = json.dumps(message).encode() + b"\n"
        try:
            while left and self._descriptor >= 0:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.close()  # nobody waits any more
