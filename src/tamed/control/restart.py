"""Restarting an instance, which reads its files and starts it as the command `tamed start` does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tamed._os.identity import Identity
from tamed.config.identity import owner_of
from tamed.config.log_plan import make_log_folder
from tamed.config.reading import Ask, Reading
from tamed.control.instances import SWEPT, find_instance, stop_instance, trusted_instance, wait_until_found
from tamed.control.launch import job_again, launch, plan_again
from tamed.errors import Unavailable
from tamed.supervisor.plan_file import has_left_plan, kept_plan, left_plan, plan_path, save_plan
from tamed.unix.detach import Report
from tamed.unix.rundir import Instance, RunDirectory

__all__ = ["find_restartable", "restart_instance"]


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
