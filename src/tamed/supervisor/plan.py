"""A plan: the complete input of the supervisor, as plain data for another process or program."""

import json
from collections.abc import Sequence
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from tamed.ipc.handoff import hand_over, take_over
from tamed.ipc.message import InvalidMessage, Message, parse_message, read_object
from tamed.log.plan import LogPlan

__all__ = ["Plan"]

_LEAST = 15.0  # seconds for a helper process to do its work


class Plan(NamedTuple):
    """The complete input of the supervisor.

    ``job`` is the command's input, and ``reading`` the content of its files (see `Reading`; a plan that is
    stored for a restart has none). Both are for the workers, and opaque to the supervisor. ``interpreter`` is
    the command that runs Python; ``-m MODULE`` is appended to it. These are paths, empty for none:
    ``pid_file`` and ``control`` of the instance, ``plan_file`` in which the plan is stored for a restart,
    ``default_log`` for a log without an option for its file, and ``second_pid_file`` of the option
    ``--pid-file``.

    ``folder`` is the working directory of the command, as the operator wrote it: a reload reads the job again
    from there. ``directory`` is the working directory of the workers, and ``worker_interpreter`` the command
    that runs them, both with links resolved when the job was read.

    ``interpreter_environ`` are the variables, ``NAME=VALUE``, that configure a Python interpreter: they are
    for the workers, and not for a supervisor that is root. With ``prepare_as_root``, workers drop root after
    they have prepared, and not before they are executed.

    ``report`` is the descriptor of the socket on which the starting command waits, -1 for a daemon in the
    foreground. ``listen_pid`` is the pid to which systemd passed its sockets, before the process became a
    daemon. ``template`` is the template that was spawned before the supervisor, see `FirstTemplate`.
    ``holder`` is, in a stored plan, the process that uses it (see `PlanFile`). ``ops`` is the operations
    endpoint, and ``ops_agent`` that of HAProxy's agent check, empty for none. ``ops_hosts`` are the names by
    which clients may address the first one. ``max_workers_memory`` is the limit of all workers together, in
    bytes, in place of that of each. ``stop_delay`` is the time between the announcement of a stop and its
    begin. ``answers`` are the secrets typed at a prompt, by the variables of their options. Times are in
    seconds.
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
    stop_delay: float = 0.0
    umask: int = 0o027
    max_files: int | None = None
    max_worker_memory: int | None = None
    max_workers_memory: int | None = None
    watchdog: float = 30.0
    report: int = -1
    listen_pid: int = 0
    template: dict[str, Any] | None = None
    holder: str = ""
    ops: str = ""
    ops_agent: str = ""
    ops_hosts: Sequence[str] = ()
    answers: dict[str, Any] = {}  # noqa: RUF012 - the class is a tuple, and the default is never changed

    @property
    def without_secrets(self) -> "Plan":
        """The plan in the form that may be stored: a restart reads the files and prompts again."""
        return self._replace(reading=None, answers={})

    @property
    def helper_timeout(self) -> float:
        """The longest time for a helper process, in seconds.

        Never short: the helper reads the files in which a ``start_timeout`` that is too short was mended.
        """
        return max(self.start_timeout, _LEAST)

    @property
    def heartbeat_interval(self) -> float:
        """The interval between a worker's heartbeats, in seconds."""
        return self.watchdog / 4

    @property
    def template_order(self) -> dict[str, Any]:
        """The first message to a template: its complete input."""
        return {**self.first_order, "preload": self.preload}

    @property
    def first_order(self) -> dict[str, Any]:
        """The first message to a worker: its complete input, apart from its origin."""
        return {
            "job": self.job,
            "reading": self.reading,
            "answers": self.answers,
            "layout": self.log.layout,
            "heartbeat": self.heartbeat_interval,
            "files": self.reload,
            "metrics": bool(self.ops),
        }

    def hand_over(self) -> int:
        """Write the plan into an anonymous file; return its descriptor, which the next program inherits."""
        return hand_over("tamed-plan", self.to_text().encode())

    @classmethod
    def take_over(cls, descriptor: int) -> "Plan":
        """Read the plan that was handed over, and close its descriptor."""
        return cls.from_text(take_over(descriptor).decode())

    def to_text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({**self._asdict(), "log": self.log._asdict()})

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """Return the plan that the text was made from.

        Unknown fields, of another version, are ignored. Raises InvalidMessage if the text is not a plan.
        """
        data = parse_message(text.encode(errors="surrogatepass"))
        log = LogPlan(**_fields(LogPlan, read_object(data, "log")))
        try:
            return cls(**{**_fields(cls, data), "log": log})
        except TypeError as error:  # a field is missing
            raise InvalidMessage(str(error)) from error


def _fields(kind: type[Plan] | type[LogPlan], data: Message) -> Message:
    """Return the known fields in the data. Raises InvalidMessage for a field of the wrong type."""
    known = {name: value for name, value in data.items() if name in kind._fields and name != "log"}
    for name, value in known.items():
        if not _is_of(value, kind.__annotations__[name]):
            raise InvalidMessage(f"{name}: a value of the wrong type")
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
