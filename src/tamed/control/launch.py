"""Launching a daemon: with the plan of a job, as a daemon or in the foreground; and a restart."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tamed._os.beginning import Unwind
from tamed._os.descriptors import close_inherited
from tamed._os.identity import Identity, becomes_another
from tamed._os.interrupts import hold_interrupts
from tamed.config.identity import (
    check_application,
    check_files,
    check_interpreter,
    identity_of,
)
from tamed.config.job import Ask, Job, Reading
from tamed.config.log_plan import default_log, log_in_foreground, log_of_daemon, make_log_folder
from tamed.control.first_template import become_supervisor
from tamed.control.head_start import HeadStart
from tamed.control.instances import (
    SWEPT,
    Waiting,
    find_instance,
    run_directory,
    stop_instance,
    trusted_instance,
    wait_until_found,
)
from tamed.control.planner import job_again, moved, plan_again, plan_of
from tamed.errors import AlreadyRunning, TamedError, Unavailable, from_os_error, status_of
from tamed.net.endpoint import Endpoint, FdEndpoint
from tamed.net.inherit import passed_to_this_process
from tamed.supervisor.plan import Plan
from tamed.supervisor.plan_file import (
    forget_plan,
    has_left_plan,
    kept_plan,
    left_plan,
    plan_path,
    restarting,
    save_plan,
)
from tamed.unix.detach import detach
from tamed.unix.pidfile import check_replaceable
from tamed.unix.report import Launch, Report
from tamed.unix.rundir import Instance, RunDirectory, check_name

__all__ = ["find_restartable", "launch", "restart_instance", "start", "supervise_here"]

_PATIENCE = 15.0  # seconds after the supervisor's deadline in which it reports that the start took too long


def start(job: Job, ask: Ask) -> Report:
    """Start a daemon and wait until it is ready or has failed; return the outcome.

    ``ask`` prompts for the secrets that the options refer to as ``prompt:``. Raises a TamedError for an error
    before the daemon exists, and Unwind in the reader of a head start (`tamed.control.head_start`).
    """
    if HeadStart.of_this_process is not None:
        ask = HeadStart.of_this_process.ask
    folder = _start_folder()
    reading = Reading.entering(job, ask)
    settings = reading.settings
    daemon = settings.daemon
    name = check_name(reading.name)
    plan = plan_of(reading, name, folder)
    identity = identity_of(daemon)
    default = default_log(name, os.environ, identity)
    directory = run_directory(daemon.rundir)
    if HeadStart.of_this_process is None:
        hold_interrupts()  # until there is a daemon that can be waited for
    else:
        HeadStart.of_this_process.place(directory.instance(name))
    instance = directory.create(name, identity)
    try:
        if not settings.log.file:
            make_log_folder(default, identity)
        plan = _as_instance(plan, instance)._replace(
            log=log_of_daemon(settings.log, default),
            default_log=str(default),
            plan_file=str(plan_path(instance)),
        )
        _check(plan, identity, reading)
        report = launch(plan)
    except Unwind:
        raise
    except BaseException as error:
        instance.remove_if_empty()
        if isinstance(error, KeyboardInterrupt):  # there was a daemon
            forget_plan(instance)
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
    plan = plan_of(reading, name, _start_folder())._replace(log=log_in_foreground(reading.settings.log))
    if daemon.name:
        plan = _as_instance(plan, run_directory(daemon.rundir).create(name, identity))
    _check(plan, identity, reading)
    if daemon.umask is not None:
        os.umask(daemon.umask)
    os.chdir(plan.directory)
    if becomes_another(identity):
        # An ``fd://`` endpoint may refer to some of them.
        close_inherited(keep=passed_to_this_process(os.environ), but_sockets=True)
    become_supervisor(plan)


def _named_by(plan: Plan) -> list[int]:
    """Return the inherited descriptors that options refer to; those of the target are not known yet."""
    endpoints = (Endpoint.parse(text) for text in (plan.ops, plan.ops_agent) if text)
    return [endpoint.fd for endpoint in endpoints if isinstance(endpoint, FdEndpoint)]


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


def _start_folder() -> str:
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


def find_restartable(directory: RunDirectory, name: str, waiting: Waiting) -> Instance:
    """Return a running instance, or one that has ended and whose plan is kept.

    Waits for a restart of it, see `restart_instance`. Raises as `find_instance` does.
    """
    if "/" in name or (instance := trusted_instance(directory, name)).is_running:
        return find_instance(directory, name)
    with restarting(instance, waiting):  # between a stop and a start there is neither of the two
        if not any((instance.is_running, has_left_plan(instance))):
            why = f"{name} is not running, and no plan of it is kept"
            raise Unavailable(why, remedy="start it: tamed start")
    return instance


def restart_instance(
    instance: Instance, progress: Callable[[dict[str, Any]], None], ask: Ask, waiting: Waiting
) -> Report:
    """Stop an instance, without a limit for its draining, and start it again; return the outcome.

    An instance that is not running is started. The start uses the stored plan, this user, the environment of
    this process and the current files. Nothing is stopped if another user started the instance (see
    `kept_plan` for the errors), or if the files have an error. ``ask`` prompts for the secrets that the
    options refer to as ``prompt:``: the plan does not contain them.

    The outcome has a warning for each changed option that a restart keeps. If the instance has been stopped
    and does not start, the outcome says so, and the plan is kept. If another command has started it again
    first, that daemon is left alone, with its plan.

    Another process of this user that restarts the instance is waited for, after a call of ``waiting``.
    """
    with restarting(instance, waiting):
        return _restart(instance, progress, ask)


def _restart(instance: Instance, progress: Callable[[dict[str, Any]], None], ask: Ask) -> Report:
    wait_until_found(instance, time.monotonic() + SWEPT)
    pid = instance.holder()
    plan = left_plan(instance) if pid is None else kept_plan(plan_path(instance), pid)
    reading = Reading.entering(job_again(plan), ask)
    warnings = moved(plan, reading)
    plan = plan_again(plan, reading)
    identity = Identity.named(plan.user, plan.group)
    if pid is not None:
        with suppress(Unavailable):  # it has ended in the meantime
            stop_instance(instance, timeout=None, force=False, progress=progress, keep_plan=True)
    hold_interrupts()  # until there is a daemon that can be waited for
    try:
        report = _launch_again(plan, instance, identity)
    except KeyboardInterrupt:
        save_plan(instance, plan.without_secrets.to_text())
        instance.remove_if_empty()
        raise
    except TamedError as error:
        instance.remove_if_empty()
        report = Report(False, f"tamed: {error}", status_of(error), None)
    if report.ready:
        return report._replace(text="\n".join([report.text, *(f"warning: {each}" for each in warnings)]))
    if report.status == AlreadyRunning.status:
        return report._replace(text=f"tamed: another command has started {instance.name} meanwhile")
    save_plan(instance, plan.without_secrets.to_text())
    if report.status and not instance.is_running:
        now = f"tamed: {instance.name} is stopped now; remove the cause, then tamed restart {instance.name}"
        report = report._replace(text=f"{report.text}\n{now}")
    return report


def _launch_again(plan: Plan, instance: Instance, identity: Identity | None) -> Report:
    RunDirectory(instance.directory.parent).create(instance.name, identity)
    if plan.log.path == plan.default_log:
        make_log_folder(Path(plan.default_log), identity)
    return launch(plan._replace(plan_file=str(plan_path(instance))))
