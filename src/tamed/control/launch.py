"""Launching: make a plan from a job, and execute the supervisor in this process; and a restart."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from tamed._os.beginning import Unwind
from tamed._os.descriptors import close_inherited
from tamed._os.identity import Identity, becomes_another
from tamed._os.limits import allowed_memory
from tamed.config.identity import (
    check_application,
    check_files,
    check_interpreter,
    identity_of,
    kept_capabilities,
    owner_of,
)
from tamed.config.job import Ask, Job, Reading
from tamed.config.log_plan import (
    default_log,
    log_in_foreground,
    log_in_foreground_again,
    log_of_daemon,
    make_log_folder,
)
from tamed.config.settings import Daemon
from tamed.control.first_template import become_supervisor
from tamed.control.head_start import HeadStart
from tamed.control.instances import (
    SWEPT,
    find_instance,
    run_directory,
    stop_instance,
    trusted_instance,
    wait_until_found,
)
from tamed.errors import ConfigurationError, Unavailable, from_os_error
from tamed.net.endpoint import Endpoint, FdEndpoint
from tamed.net.inherit import passed_to_this_process
from tamed.supervisor.plan import Plan
from tamed.supervisor.plan_file import forget_plan, has_left_plan, kept_plan, left_plan, plan_path, save_plan
from tamed.unix.detach import Launch, Report, detach
from tamed.unix.pidfile import check_replaceable
from tamed.unix.rundir import Instance, RunDirectory, check_name

__all__ = [
    "find_restartable",
    "job_again",
    "launch",
    "plan_again",
    "restart_instance",
    "start",
    "start_folder",
    "supervise_here",
]

_PATIENCE = 15.0  # seconds after the supervisor's deadline in which it reports that the start took too long
_UMASK = 0o027


def start(job: Job, ask: Ask) -> Report:
    """Start a daemon and wait until it is ready or has failed; return the outcome.

    ``ask`` prompts for the secrets that the options refer to as ``prompt:``. Raises a TamedError for an error
    before the daemon exists, and Unwind in the reader of a head start (`tamed.control.head_start`).
    """
    if HeadStart.of_this_process is not None:
        ask = HeadStart.of_this_process.ask
    folder = start_folder()
    reading = Reading.entering(job, ask)
    settings = reading.settings
    daemon = settings.daemon
    name = check_name(reading.name)
    plan = _plan(reading, name, folder)
    identity = identity_of(daemon)
    owner = owner_of(identity)
    default = default_log(name, os.environ, owner)
    instance = run_directory(daemon.rundir).create(name, owner)
    try:
        if not settings.log.file:
            make_log_folder(default, owner)
        plan = _as_instance(plan, instance)._replace(
            log=log_of_daemon(settings.log, default),
            default_log=str(default),
            plan_file=str(plan_path(instance)),
        )
        _check(plan, identity, reading)
        report = launch(plan)
    except Unwind:
        raise
    except BaseException:
        instance.remove_if_empty()
        raise
    if not report.ready:
        instance.remove_if_empty()
        forget_plan(instance)
    return report


def launch(plan: Plan) -> Report:
    """Start the daemon of a plan, and wait until it is ready or has failed. Raises as `start` does."""
    keep = [*passed_to_this_process(os.environ), *_named_by(plan)]
    timeout = plan.start_timeout + _PATIENCE
    if HeadStart.of_this_process is not None:
        HeadStart.of_this_process.hand_over(plan, Identity.named(plan.user, plan.group), keep, timeout)
    plan = plan._replace(listen_pid=os.getpid())
    launched = detach(keep=keep, umask=plan.umask, directory=Path(plan.directory))
    if not isinstance(launched, Launch):
        os.set_inheritable(launched.fileno(), True)
        become_supervisor(plan._replace(report=launched.fileno()))
    return launched.wait(timeout)


def supervise_here(reading: Reading) -> NoReturn:
    """Become the supervisor of a job, in the foreground.

    With an explicit name, it is an instance in the run directory, and other commands find it.
    """
    daemon = reading.settings.daemon
    name = check_name(reading.name)
    identity = identity_of(daemon)
    plan = _plan(reading, name, start_folder())._replace(log=log_in_foreground(reading.settings.log))
    if daemon.name:
        plan = _as_instance(plan, run_directory(daemon.rundir).create(name, owner_of(identity)))
    _check(plan, identity, reading)
    if daemon.umask is not None:
        os.umask(daemon.umask)
    os.chdir(plan.directory)
    if becomes_another(identity):
        # An ``fd://`` endpoint may refer to some of them.
        close_inherited(keep=passed_to_this_process(os.environ), but_sockets=True)
    become_supervisor(plan)


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


def plan_again(plan: Plan, reading: Reading) -> Plan:
    """Return the plan of a job from the current files, for a daemon that runs with an older plan of it."""
    settings = reading.settings
    again = _plan(reading, plan.name, plan.folder)
    return again._replace(
        interpreter=plan.interpreter,
        worker_interpreter=_resolved(plan.interpreter, plan.folder),
        log=log_of_daemon(settings.log, Path(plan.default_log))
        if plan.plan_file
        else log_in_foreground_again(settings.log, plan.log),
        pid_file=plan.pid_file,
        second_pid_file=plan.second_pid_file,
        control=plan.control,
        plan_file=plan.plan_file,
        default_log=plan.default_log,
        listen_pid=plan.listen_pid,
    )


def _plan(reading: Reading, name: str, folder: str) -> Plan:
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


def _named_by(plan: Plan) -> list[int]:
    """Return the inherited descriptors that options refer to; those of the target are not known yet."""
    endpoints = (Endpoint.parse(text) for text in (plan.ops, plan.ops_agent) if text)
    return [endpoint.fd for endpoint in endpoints if isinstance(endpoint, FdEndpoint)]


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


def _as_instance(plan: Plan, instance: Instance) -> Plan:
    pid_file = str(instance.pid_file)
    second = "" if plan.second_pid_file == pid_file else plan.second_pid_file
    return plan._replace(pid_file=pid_file, second_pid_file=second, control=str(instance.socket))


def _check(plan: Plan, identity: Identity | None, reading: Reading) -> None:
    """Refuse files that the daemon's user cannot use, before anything is created."""
    check_files(identity, log=plan.log.path, pid_files=(plan.pid_file, plan.second_pid_file))
    if plan.second_pid_file:
        check_replaceable(Path(plan.second_pid_file))
    check_interpreter(identity)
    check_application(identity, reading.job, reading.deployment)


def start_folder() -> str:
    """Return the working directory as the operator wrote it: it may contain a link that changes later.

    Raises MissingInput if it has been removed.
    """
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise from_os_error("the current folder", error, "change to another one") from error
    written = os.environ.get("PWD", "")
    try:
        return written if written.startswith("/") and Path(here).samefile(written) else here
    except OSError:
        return here


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


def find_restartable(directory: RunDirectory, name: str) -> Instance:
    """Return a running instance, or one that has ended and whose plan is kept.

    Raises as `find_instance` does.
    """
    if "/" in name or (instance := trusted_instance(directory, name)).is_running:
        return find_instance(directory, name)
    if not has_left_plan(instance):
        raise Unavailable(f"{name} is not running, and no plan of it is kept", remedy="start it: tamed start")
    return instance


def restart_instance(instance: Instance, progress: Callable[[dict[str, Any]], None], ask: Ask) -> Report:
    """Stop an instance, without a limit for its draining, and start it again; return the outcome.

    An instance that is not running is started. The start uses the stored plan, this user, the environment of
    this process and the current files. Nothing is stopped if another user started the instance (see
    `kept_plan` for the errors), or if the files have an error. ``ask`` prompts for the secrets that the
    options refer to as ``prompt:``: the plan does not contain them.
    """
    wait_until_found(instance, time.monotonic() + SWEPT)
    pid = instance.holder()
    plan = left_plan(instance) if pid is None else kept_plan(plan_path(instance), pid)
    plan = plan_again(plan, Reading.entering(job_again(plan), ask))
    identity = Identity.named(plan.user, plan.group)
    if pid is not None:
        stop_instance(instance, timeout=None, force=False, progress=progress)
    RunDirectory(instance.directory.parent).create(instance.name, owner_of(identity))
    if plan.log.path == plan.default_log:
        make_log_folder(Path(plan.default_log), owner_of(identity))
    report = launch(plan._replace(plan_file=str(plan_path(instance))))
    if not report.ready:
        save_plan(instance, plan.without_secrets.to_text())
    return report
