"""The last state of an ended daemon: the time, the reason, the exit status, and the path of its log.

A supervisor that ends without a request writes a small file beside its plan. The next start removes it. A
supervisor that was killed writes no such file, but leaves its pid file.
"""

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from tamed._os.trust import TO_CREATE, TO_READ
from tamed.errors import ConfigurationError
from tamed.ipc.message import InvalidMessage, encode_message, parse_message, read_number, read_text
from tamed.log.layout import rfc3339
from tamed.unix.rundir import Instance, RunDirectory

__all__ = ["LastState"]

_LONGEST = 65536  # bytes
_LONGEST_ERROR = 4096  # characters of the reason
_KILLED = "it was killed, or the system crashed: it left its pid file behind"


class LastState(NamedTuple):
    """How an instance has ended.

    ``ended_at`` is a time in the format of RFC 3339. It and ``status``, the exit status, are None for an
    instance that was killed. ``log`` is the path of its log file, empty if it had none.
    """

    name: str
    error: str
    status: int | None
    ended_at: str | None
    log: str

    @property
    def state(self) -> str:
        """``ended`` by its own choice with status 0, ``stopped`` on request, and ``failed`` otherwise."""
        if not self.error:
            return "stopped"
        return "ended" if self.status == 0 else "failed"

    @classmethod
    def now(cls, name: str, error: str, status: int, log: str) -> Self:
        """Return the state of an instance that ends now."""
        return cls(name, error[:_LONGEST_ERROR], status, rfc3339(time.time()), log)

    @classmethod
    def of(cls, instance: Instance) -> Self | None:
        """Return how an instance that does not run has ended; None if that is unknown, or was requested."""
        data = _content(_path(instance))
        if data:
            with suppress(InvalidMessage):
                left = parse_message(data, _LONGEST)
                error, ended_at, log = (read_text(left, key) for key in ("error", "ended_at", "log"))
                return cls(instance.name, error, read_number(left, "status", most=255), ended_at, log)
        if instance.pid_file.is_file():
            return cls(instance.name, _KILLED, None, None, "")
        return None

    @classmethod
    def stopped(cls, name: str) -> Self:
        """Return the state of an instance that was stopped on request."""
        return cls(name, "", None, None, "")

    @classmethod
    def all_in(cls, directory: RunDirectory) -> list[Self]:
        """Return the last states in a run directory."""
        found = []
        with suppress(OSError):
            for folder in directory.path.iterdir():
                with suppress(ConfigurationError):
                    instance = directory.instance(folder.name)
                    found.append(cls.of(instance) if instance.is_trusted else None)
        return [state for state in found if state is not None]

    @classmethod
    def only_one(cls, directory: RunDirectory) -> Self | None:
        """Return the last state in a run directory; None if no instance has one, or several have."""
        states = cls.all_in(directory)
        return states[0] if len(states) == 1 else None

    def leave(self, instance: Instance) -> None:
        """Write it into the instance's folder; do nothing if that folder is gone."""
        left = {"error": self.error, "status": self.status, "ended_at": self.ended_at, "log": self.log}
        self.forget(instance)
        with suppress(OSError), os.fdopen(os.open(_path(instance), TO_CREATE, 0o600), "wb") as file:
            file.write(encode_message(left))

    @staticmethod
    def forget(instance: Instance) -> None:
        """Remove the file, because the instance runs again."""
        with suppress(OSError):
            _path(instance).unlink()


def _path(instance: Instance) -> Path:
    return instance.directory / f"{instance.name}.failed"


def _content(path: Path) -> bytes:
    """Read a small regular file. The owner of the folder could have put anything there."""
    try:
        with os.fdopen(os.open(path, TO_READ), "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(_LONGEST) if is_regular else b""
    except OSError:
        return b""
