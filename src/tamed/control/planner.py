"""Plans: made from a reading for a start, and again for a reload or a restart.

For a reload a short-lived process reads the files. The supervisor runs it as ``python -m
tamed.control.planner NAME``, or has a template fork it. It receives the current plan over its channel, and
answers with the next one.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tamed._os.limits import allowed_memory
from tamed.config.deployment import read_env_file
from tamed.config.identity import identity_of, kept_capabilities
from tamed.config.job import Job, Reading
from tamed.config.log_plan import log_in_foreground_again, log_of_daemon
from tamed.config.settings import Daemon, Name
from tamed.errors import ConfigurationError, PermissionRefused, from_os_error
from tamed.ipc.channel import Channel, answer_order
from tamed.ipc.message import Message, read_text
from tamed.net.endpoint import Endpoint
from tamed.supervisor.plan import Plan

__all__ = ["job_again", "main", "moved", "plan_again", "plan_of"]

_UMASK = 0o027
_FIXED = {
    "user": "user",
    "group": "group",
    "keep_capabilities": "keep_capability",
    "prepare_as_root": "prepare_as_root",
    "umask": "umask",
    "max_files": "max_files",
    "second_pid_file": "pid_file",
    "ops": "ops",
    "ops_agent": "ops_agent",
    "ops_hosts": "ops_host",
}
"""The fields of a plan that a running daemon cannot change, and their settings."""

_OF_START = ("env_file", "trust_writable")
"""The settings that only a start uses."""


def plan_of(reading: Reading, name: str, folder: str) -> Plan:
    """Return the plan of a reading, which was read in this folder, for a daemon of this name.

    Its log and the paths of its instance are missing. Raises ConfigurationError for settings that a daemon
    with workers cannot have.
    """
    job, daemon = reading.job, reading.settings.daemon
    if daemon.chroot is not None:
        why = "a replacement worker cannot change its root directory: the daemon has dropped root"
        raise ConfigurationError("--chroot with workers", why, "use `tamed run` without --workers")
    if daemon.directory is not None and job.folder is None:
        job = job._replace(folder=Path.cwd())
    interpreter = _interpreter(folder)
    return Plan(
        name=name,
        job=job.to_data(),
        reading=reading.to_data(),
        answers=dict(job.answers),
        interpreter=interpreter,
        worker_interpreter=_resolved(interpreter, folder),
        workers=daemon.workers or 1,
        preload=daemon.preload,
        second_pid_file="" if daemon.pid_file is None else str(daemon.pid_file.absolute()),
        reload=_reloads_itself(daemon),
        folder=folder,
        directory=str((daemon.directory or Path()).resolve()),
        user=daemon.user,
        group=daemon.group,
        prepare_as_root=daemon.prepare_as_root,
        keep_capabilities=[str(each) for each in kept_capabilities(daemon)],
        start_timeout=daemon.start_timeout,
        stop_timeout=daemon.longest_stop,
        stop_delay=daemon.stop_delay,
        watchdog=daemon.watchdog,
        max_files=daemon.max_files,
        max_worker_memory=None if daemon.max_worker_memory == "auto" else daemon.max_worker_memory,
        # A tenth is left to other processes and the kernel.
        max_workers_memory=allowed_memory() * 9 // 10 if daemon.max_worker_memory == "auto" else None,
        umask=_UMASK if daemon.umask is None else daemon.umask,
        listen_pid=os.getpid(),
        ops=_ops(daemon),
        ops_agent=_ops_agent(daemon),
        ops_hosts=daemon.ops_host,
    )


def plan_again(plan: Plan, reading: Reading) -> Plan:
    """Return the plan of a job from the current files, for a daemon that runs with an older plan of it."""
    settings = reading.settings
    again = plan_of(reading, plan.name, plan.folder)
    return again._replace(
        interpreter=plan.interpreter,
        worker_interpreter=_resolved(plan.interpreter, plan.folder),
        log=log_of_daemon(settings.log, Path(plan.default_log))
        if plan.plan_file
        else log_in_foreground_again(settings.log, plan.log),
        pid_file=plan.pid_file,
        second_pid_file="" if again.second_pid_file == plan.pid_file else again.second_pid_file,
        control=plan.control,
        plan_file=plan.plan_file,
        default_log=plan.default_log,
        listen_pid=plan.listen_pid,
    )


def moved(plan: Plan, reading: Reading) -> list[str]:
    """Return a note for each changed option by which commands find the instance, which stays where it is.

    No run directory is no other one: the start may have had it from the environment, or by its default.
    """
    rundir, names = reading.settings.daemon.rundir, ["name"] * (plan.name != reading.name)
    if rundir is not None and plan.control:
        place = Path(plan.control).parents[1]
        names += ["rundir"] * (Path(plan.folder, rundir).resolve() != place.resolve())
    return [f"{name} has changed and needs a stop and a start" for name in names]


def job_again(plan: Plan) -> Job:
    """Change to the folder in which the command of a plan was run, and return its job.

    Raises MissingInput or Unavailable, with the folder's name, if that folder is gone or cannot be entered.
    """
    job = Job.from_data(plan.job)._replace(answers=plan.answers)
    try:
        os.chdir(plan.folder)
    except PermissionError:  # root started it in a folder that its user cannot enter: use the stored path
        return job
    except OSError as error:
        what = f"cannot enter {plan.folder}, where {plan.name} was started"
        raise from_os_error(what, error, "create it, or stop the daemon and start it elsewhere") from error
    return job._replace(folder=None)


# Parts of a plan.


def _ops(daemon: Daemon) -> str:
    """Return the text of the operations endpoint, or nothing.

    Raises ConfigurationError if it is no endpoint, or a library is missing.
    """
    text = _endpoint_text("--ops", daemon.ops)
    for module in ("httptools", "prometheus_client") if text else ():
        if find_spec(module) is None:
            raise ConfigurationError("--ops", f"{module} is not installed", "pip install 'tamed[ops]'")
    return text


def _ops_agent(daemon: Daemon) -> str:
    """Return the text of the agent's endpoint, or nothing. Raises ConfigurationError if it cannot be used."""
    if daemon.ops_agent and not daemon.ops:
        raise ConfigurationError("--ops-agent", "there is no operations endpoint", "add --ops ENDPOINT")
    return _endpoint_text("--ops-agent", daemon.ops_agent)


def _endpoint_text(option: str, text: str) -> str:
    """Return the canonical text of an option's endpoint, with an absolute path; empty for an empty text."""
    try:
        return str(Endpoint.parse(text).relative_to(Path.cwd())) if text else ""
    except ValueError as error:
        raise ConfigurationError(option, str(error)) from None


def _reloads_itself(daemon: Daemon) -> bool:
    """Return whether to watch files. Raises ConfigurationError if that is impossible."""
    if daemon.reload and find_spec("watchfiles") is None:
        raise ConfigurationError("--reload", "watchfiles is not installed", "pip install 'tamed[reload]'")
    return daemon.reload


def _resolved(interpreter: Sequence[str], folder: str) -> list[str]:
    """Return the command that runs Python; for a program in this folder, with the folder's links resolved."""
    program = Path(interpreter[0])
    if not program.is_relative_to(folder):
        return list(interpreter)
    return [str(Path(folder).resolve() / program.relative_to(folder)), *interpreter[1:]]


def _interpreter(folder: str) -> list[str]:
    """Return the command that runs this interpreter with its options, without this folder on the path.

    A program in the working directory is named by ``folder``, the directory as the operator wrote it.
    """
    program = Path(sys.executable)
    if program.is_relative_to(here := Path(folder).resolve()):
        program = Path(folder) / program.relative_to(here)
    options = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return [str(program), "-P", *options, *(f"-W{option}" for option in sys.warnoptions)]


# The process.


def main(channel: Channel | None = None) -> None:
    """Answer one order. A forked process passes its ``channel``."""
    answer_order(_next_plan, channel)


def _next_plan(order: Message) -> Message:
    """Return the plan that follows one, and a note for each change that needs a restart."""
    plan = Plan.from_text(read_text(order, "plan"))
    reading = Reading.of(job_again(plan))
    _require_restartable(reading.settings.daemon, plan)
    assert plan.reading is not None  # a stored plan alone has none
    before = Reading.from_data(reading.job, plan.reading)
    wanted, changed = plan_again(plan, reading), _changes(before, reading)
    notes = [
        f"{name.replace('_', '-')} has changed and needs a restart"
        for name in (*_fixed(plan, wanted), *_of_start(plan, before, reading, changed))
    ]
    notes += moved(plan, reading)
    if notes:
        fixed = {field: getattr(plan, field) for field in _FIXED}
        wanted = plan_again(plan, _with_fixed(plan, before, reading))._replace(**fixed)
    return {"plan": wanted.to_text(), "notes": notes, "changed": changed}


# What has changed, and has no effect at a reload.


def _fixed(plan: Plan, wanted: Plan) -> Iterator[str]:
    """Yield the settings of changed fields of the plan that the daemon cannot change."""
    yield from (name for field, name in _FIXED.items() if getattr(plan, field) != getattr(wanted, field))


def _of_start(plan: Plan, before: Reading, after: Reading, changed: Sequence[str]) -> Iterator[str]:
    """Yield the changed settings that only a start uses.

    The start has put ``trust-writable`` into the environment, which overrides the file.
    """
    old, new = before.settings.daemon, after.settings.daemon
    if _place(plan.folder, old.env_file) != _place(plan.folder, new.env_file):
        yield "env_file"
    is_untrusted = old.trust_writable and "daemon.trust-writable" in changed
    if old.trust_writable != new.trust_writable or is_untrusted:
        yield "trust_writable"


def _with_fixed(plan: Plan, before: Reading, after: Reading) -> Reading:
    """Return a reading with the settings that the daemon keeps from the one ``before``."""
    kept = {name: getattr(before.settings.daemon, name) for name in (*_FIXED.values(), *_OF_START)}
    if after.name != plan.name:
        kept["name"] = Name(plan.name)
    daemon = replace(after.settings.daemon, **kept)
    return after._replace(settings=after.settings._replace(daemon=daemon))


def _place(folder: str, path: Path | None) -> str:
    return "" if path is None else str(Path(folder, path))


def _require_restartable(daemon: Daemon, plan: Plan) -> None:
    """Raise as the next start would, for what only a start uses and this process can see."""
    identity_of(daemon)
    try:
        if daemon.env_file is not None:
            read_env_file(daemon.env_file)
    except PermissionRefused:
        if not (plan.user or plan.group):  # the daemon has become another user: only root may read the file
            raise


def _changes(before: Reading, after: Reading) -> list[str]:
    """Return the names of the settings that differ, without their values, which may be secret."""
    changed = [f"program {after.program}"] if before.program != after.program else []
    changed += sorted(_differing(before.settings.to_data(), after.settings.to_data()))
    old, new = (_table(each) for each in (before, after))
    return changed + [each for each in sorted(_differing(old, new)) if each not in changed]


def _as_table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _table(reading: Reading) -> dict[str, Any]:
    import tomllib  # lazy import: a start without a deployment file does not need it

    return {} if reading.deployment is None else tomllib.loads(reading.deployment.text)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted names of the keys with different values."""
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from _differing(_as_table(old), _as_table(new), f"{above}{key}.")
        elif old != new:
            yield f"{above}{key}"


if __name__ == "__main__":
    main()
