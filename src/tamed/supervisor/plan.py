"""A plan: all that the supervisor needs to know, as plain data, so that it can be handed over an exec."""

import json
import os
from collections.abc import Sequence
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from tamed.ipc.message import InvalidMessage, Message, parse_message, read_object
from tamed.log.plan import LogPlan

__all__ = ["Plan"]


class Plan(NamedTuple):
    """What to run and how.

    ``job`` is what was given, and ``reading`` what its files said (see `Reading`; a plan that is kept for a
    restart has none): both are for the workers, and opaque to the supervisor. ``interpreter`` is the command
    that runs Python, for ``-m MODULE`` to follow. ``pid_file`` and ``control`` are the instance's,
    ``plan_file`` is where the plan is kept for a restart, ``default_log`` is where it logs unless the
    operator says, and ``second_pid_file`` is where the operator wants one more: paths, empty for none.

    ``folder`` is where the command was run, as the operator wrote it: the job is read anew from
    there. ``directory`` is the working directory of the workers, and ``worker_interpreter`` what runs them,
    wherever links led to when the job was read.

    ``interpreter_environ`` are variables, ``NAME=VALUE``, that an interpreter heeds: for the workers, and not
    for a supervisor that is root. ``prepare_as_root`` says that workers drop root when they are prepared, and
    not before they are executed.

    ``report`` is the descriptor of the pipe on which the command that started the daemon waits, -1 for none:
    it runs in the foreground. ``listen_pid`` is the process that systemd passed its sockets to, before it
    became another. ``holder`` is, in a plan that is kept, the process that runs by it (see `PlanFile`). Times
    are in seconds.
    """

    name: str
    job: dict[str, Any]
    interpreter: Sequence[str]
    reading: dict[str, Any] | None = None
    workers: int = 1
    preload: bool = False
    reload: bool = False
    log: LogPlan = LogPlan()
    pid_file: str = ""
    second_pid_file: str = ""
    control: str = ""
    plan_file: str = ""
    default_log: str = ""
    folder: str = ""
    directory: str = ""
    worker_interpreter: Sequence[str] = ()
    user: str = ""
    group: str = ""
    keep_capabilities: Sequence[str] = ()
    prepare_as_root: bool = False
    interpreter_environ: Sequence[str] = ()
    start_timeout: float = 60.0
    stop_timeout: float = 60.0
    umask: int = 0o027
    max_files: int | None = None
    max_worker_memory: int | None = None
    watchdog: float = 30.0
    report: int = -1
    listen_pid: int = 0
    holder: str = ""

    @property
    def heartbeat_interval(self) -> float:
        """How often a worker gives a sign of life, in seconds."""
        return self.watchdog / 4

    @property
    def first_order(self) -> dict[str, Any]:
        """The first order of a worker or a template: all that it is made from."""
        return {
            "job": self.job,
            "reading": self.reading,
            "layout": self.log.layout,
            "heartbeat": self.heartbeat_interval,
            "files": self.reload,
        }

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
        """Return the plan that the text was made from.

        What another version has in its plans and this one does not know is passed over. Raises InvalidMessage
        for what is no plan.
        """
        data = parse_message(text.encode(errors="surrogatepass"))
        log = LogPlan(**_fields(LogPlan, read_object(data, "log")))
        try:
            return cls(**{**_fields(cls, data), "log": log})
        except TypeError as error:  # something is missing
            raise InvalidMessage(str(error)) from error


def _fields(kind: type[Plan] | type[LogPlan], data: Message) -> Message:
    """Return the fields of a tuple that are in the data. Raises InvalidMessage for one of another type."""
    known = {name: value for name, value in data.items() if name in kind._fields and name != "log"}
    for name, value in known.items():
        if not _is_of(value, kind.__annotations__[name]):
            raise InvalidMessage(f"{name}: not what a plan has there")
    return known


def _is_of(value: object, hint: Any) -> bool:
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if isinstance(hint, UnionType):
        return any(_is_of(value, each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is Sequence:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, kind)
