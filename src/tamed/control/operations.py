"""The operations on a running instance: reload, reopen, upgrade, scale and restart."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tamed._os.identity import Identity
from tamed.config.identity import owner_of
from tamed.config.log_plan import make_log_folder
from tamed.config.reading import Ask, Reading
from tamed.control.instances import (
    ANSWERED,
    SWEPT,
    Waiting,
    ask_instance,
    find_instance,
    stop_instance,
    trusted_instance,
    understood,
    wait_until_found,
)
from tamed.control.launch import job_again, launch, plan_again
from tamed.errors import Unavailable
from tamed.ipc.message import Message, read_fault, read_number, read_text, read_texts
from tamed.supervisor.plan_file import has_left_plan, kept_plan, left_plan, plan_path, save_plan
from tamed.unix.detach import Report
from tamed.unix.rundir import Instance, RunDirectory

__all__ = [
    "find_restartable",
    "reload_instance",
    "reopen_instance",
    "resign_role",
    "restart_instance",
    "scale_instance",
    "upgrade_instance",
]


def reload_instance(instance: Instance, waiting: Waiting) -> Report:
    """Replace the workers of an instance with new ones, from the current files and code; return the outcome.

    Waits without a time limit. If the reload fails, the old workers continue.
    """
    return _request(instance, {"command": "reload"}, waiting, "reloaded")


def reopen_instance(instance: Instance) -> Report:
    """Make an instance reopen its log file; return the outcome."""
    return _request(instance, {"command": "reopen"}, None, "reopened", timeout=ANSWERED)


def resign_role(instance: Instance, role: str, waiting: Waiting) -> Report:
    """Move a role of an instance to another worker; wait until one holds it, without a limit."""
    return _request(instance, {"command": "resign", "role": role}, waiting, "resigned")


def upgrade_instance(instance: Instance, waiting: Waiting) -> Report:
    """Replace the program of an instance's supervisor, and then reload; return the outcome.

    Waits without a time limit. If the upgrade fails, the old program continues.
    """
    report = _request(instance, {"command": "upgrade"}, waiting, "reloaded")
    return report._replace(text=report.text.replace("was reloaded", "was upgraded", 1))


def scale_instance(instance: Instance, workers: int, waiting: Waiting, *, yes: bool) -> Report:
    """Scale an instance to this number of workers; wait until they are ready.

    ``yes`` confirms a very large number.
    """
    return _request(instance, {"command": "scale", "workers": workers, "yes": yes}, waiting, "scaled")


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


def _request(
    instance: Instance, request: Message, waiting: Waiting | None, key: str, timeout: float | None = None
) -> Report:
    answer = ask_instance(instance, request, timeout, waiting)
    with understood(instance):
        if "fault" in answer:
            lines, status = read_fault(answer)
            return Report(ready=False, text="\n".join(lines), status=status, pid=None)
        warnings = [f"warning: {each}" for each in read_texts(answer, "warnings")]
        text = str(read_number(answer, key)) if key == "scaled" else read_text(answer, key)
        return Report(ready=True, text="\n".join([text, *warnings]), status=0, pid=None)
