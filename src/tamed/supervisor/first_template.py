"""The first template, which starts in parallel with its supervisor.

The command spawns it just before it becomes the supervisor by exec. So two interpreters start at the same
time, each on a core of its own, and the first worker is ready sooner. The template is a child of the same
process before and after the exec, and has the interpreter, the environment, the rights and the descriptors of
one that the supervisor spawns (`tamed.supervisor.spawner`).

The plan contains its pid. Without one, the supervisor spawns a template when it needs one. There is none

- if the system refuses to start it: the supervisor will get and report the same error;
- with ``--preload``: no code of the application may run before the supervisor holds the pid file;
- if the command has threads, because a plugin has started them.
"""

import errno
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple, Self

from tamed._os.identity import Identity
from tamed.ipc.message import InvalidMessage, encode_message, read_number
from tamed.supervisor.plan import Plan
from tamed.supervisor.spawner import TEMPLATE, ChildPipes, Spawner
from tamed.unix.reaper import signal_group

__all__ = ["FirstTemplate"]


class FirstTemplate(NamedTuple):
    """A template that was spawned for a plan: its pid, and our ends of its channel and of its pipes."""

    pid: int
    channel: int
    records: int
    output: int

    @classmethod
    def spawn(cls, plan: Plan, identity: Identity | None, environ: Mapping[str, str]) -> Plan:
        """Spawn the template of a plan, if there can be one; return the plan with it.

        ``environ`` is the environment of the supervisor to come. The process must be the one that becomes the
        supervisor, and must have one thread only.
        """
        if plan.preload:
            return plan
        try:
            return plan._replace(template=cls._spawned(plan, identity, environ)._asdict())
        except (OSError, InvalidMessage):
            return plan

    @classmethod
    def _spawned(cls, plan: Plan, identity: Identity | None, environ: Mapping[str, str]) -> Self:
        with ExitStack() as held:
            ours, theirs = map(held.enter_context, socket.socketpair())
            _send_at_once(ours, encode_message(plan.template_order))
            pipes = ChildPipes(plan.directory)
            held.callback(pipes.close)
            spawner = Spawner(plan, identity, environ, limits_files=True)
            pid = spawner.spawn(theirs.fileno(), pipes.theirs, *TEMPLATE, interpreter=plan.worker_interpreter)
            first = cls(pid, ours.detach(), *pipes.take_ours())
        for descriptor in first.descriptors:
            os.set_inheritable(descriptor, True)
        return first

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


def _send_at_once(sock: socket.socket, line: bytes) -> None:
    """Send a line to a process that does not read yet. Raises OSError if the socket's buffer is full."""
    sock.setblocking(False)
    if sock.send(line) < len(line):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
