"""A plan: all that the supervisor needs to know, as plain data, so that it can be handed over an exec."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tamed.runner._log_place import LogPlan

__all__ = ["Plan"]


class Plan(NamedTuple):
    """What to run and how. ``job`` is for the workers, and opaque to the supervisor.

    ``interpreter`` is the command that runs Python, for ``-m MODULE`` to follow. ``pid_file`` and
    ``control`` are the instance's, ``plan_file`` is where the plan is kept for a restart, and
    ``second_pid_file`` is where the operator wants one more: paths, empty for none. ``directory`` is the
    working directory. ``report`` is the descriptor of the pipe on which the command that started the daemon
    waits, -1 for none: it runs in the foreground. ``listen_pid`` is the process that systemd passed its
    sockets to, before it became another. Times are in seconds.
    """

    name: str
    job: dict[str, Any]
    interpreter: Sequence[str]
    workers: int = 1
    preload: bool = False
    reload: bool = False
    log: LogPlan = LogPlan()
    pid_file: str = ""
    second_pid_file: str = ""
    control: str = ""
    plan_file: str = ""
    directory: str = ""
    user: str = ""
    group: str = ""
    keep_capabilities: Sequence[str] = ()
    start_timeout: float = 60.0
    stop_timeout: float = 60.0
    umask: int = 0o027
    max_files: int | None = None
    watchdog: float = 30.0
    report: int = -1
    listen_pid: int = 0

    @property
    def beat_interval(self) -> float:
        """How often a worker gives a sign of life, in seconds."""
        return self.watchdog / 4

    def hand_over(self) -> int:
        """Write the plan into an anonymous file; return its descriptor, which the next program inherits."""
        descriptor = os.memfd_create("tamed-plan", 0)
        with os.fdopen(os.dup(descriptor), "w") as file:
            file.write(self.to_text())
        return descriptor

    @classmethod
    def take_over(cls, descriptor: int) -> "Plan":
        """Read the plan that was handed over, and close its descriptor."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor) as file:
            return cls.from_text(file.read())

    def to_text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({**self._asdict(), "log": self.log._asdict()})

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """Return the plan that the text was made from."""
        data = json.loads(text)
        return cls(**{**data, "log": LogPlan(**data["log"])})
