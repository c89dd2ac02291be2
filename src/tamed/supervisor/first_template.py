"""The first template, as its supervisor finds it: a child that was made before the exec."""

import os
import signal
from contextlib import suppress
from typing import NamedTuple, Self

from tamed.ipc.message import read_number
from tamed.supervisor.plan import Plan
from tamed.unix.reaper import signal_group

__all__ = ["FirstTemplate"]


class FirstTemplate(NamedTuple):
    """A template that was made for a plan: its pid, and our ends of its channel and of its pipes."""

    pid: int
    channel: int
    records: int
    output: int

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """Return the template of a plan that was handed over, if it has one."""
        data = plan.template
        return None if data is None else cls(*(read_number(data, field) for field in cls._fields))

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """The descriptors that the supervisor inherits for it."""
        return self.channel, self.records, self.output

    def end(self) -> None:
        """Kill the process and wait for its end, because no supervisor will use it."""
        with suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored: the kernel reaps it
            signal_group(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
