"""Instances: the daemons of a run directory, and the requests of commands to them."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tamed._os.identity import Identity
from tamed._os.proc import ProcessEntry, descendants_of
from tamed.config.identity import owner_of
from tamed.config.log_plan import default_logs, make_log_folder
from tamed.config.reading import Reading
from tamed.control.client import ask, read_status
from tamed.control.launch import job_again, launch, plan_again
from tamed.errors import MissingInput, SystemRefused, TamedError, Unavailable, UsageError
from tamed.ipc.message import (
    InvalidMessage,
    Message,
    read_fault,
    read_number,
    read_text,
    read_texts,
)
from tamed.supervisor.events import EVENTS_SUFFIX
from tamed.supervisor.last_state import LastState
from tamed.supervisor.plan_file import forget_plan, kept_plan, plan_path
from tamed.unix.detach import Report
from tamed.unix.lock import holder
from tamed.unix.process import ProcessHandle
from tamed.unix.rundir import Instance, RunDirectory

__all__ = [
    "events_of_instance",
    "find_instance",
    "last_state_of",
    "log_of_instance",
    "reload_instance",
    "reopen_instance",
    "restart_instance",
    "scale_instance",
    "status_of_instance",
    "stop_instance",
    "upgrade_instance",
]


_ANSWERED = 10.0  # seconds for an answer that waits for no operation
_LOOK = 0.5  # seconds between two status requests to a stopping instance
_SWEPT = 5.0  # seconds for an instance to create its removed files again
_GLANCE = 0.05  # seconds between two checks of files or processes
_PATIENCE = 15.0  # seconds for a supervisor to end all its processes
_LAST = 5.0  # seconds for killed processes to end


def find_instance(directory: RunDirectory, name: str | None) -> Instance:
    """Return the instance of a name, or the only running one.

    A name with a slash, which is no valid name of an instance, is the path of a pid file, for example of
    twistd. Raises Unavailable if the instance does not run, UsageError if several run and no name is given,
    and PermissionRefused if another user could have created the instance's files.
    """
    running = directory.running()
    names = ", ".join(each.name for each in running)
    if name is not None:
        instance = _holder_among(running, Path(name)) if "/" in name else _trusted_instance(directory, name)
        if instance is None or not instance.is_running:
            remedy = f"running: {names}" if names else f"nothing runs in {directory.path}"
            raise Unavailable(f"{name} is not running", remedy=remedy)
        return instance
    if not running:
        for each in directory.instances():
            each.require_trusted()
        raise Unavailable("nothing is running", f"there is no instance in {directory.path}")
    if len(running) > 1:
        raise UsageError("several instances run", names, "name one of them")
    return running[0]


def _trusted_instance(directory: RunDirectory, name: str) -> Instance:
    """Return the instance of a name. Raises PermissionRefused if another user could have created it."""
    instance = directory.instance(name)
    instance.require_trusted()
    return instance


def _holder_among(running: Sequence[Instance], pid_file: Path) -> Instance | None:
    pid = holder(pid_file)
    return next((each for each in running if holder(each.pid_file) == pid), None)


def last_state_of(directory: RunDirectory, name: str | None) -> LastState | None:
    """Return the last state of the instance of a name, or without a name, of the only instance that has one.

    None if it runs, or has ended on request. Without a name, None if any instance runs.
    """
    if name is None:
        return None if directory.running() else LastState.only_one(directory)
    if "/" in name or (instance := _trusted_instance(directory, name)).is_running:
        return None
    left = LastState.of(instance)
    if left is not None and left.status is None and (logs := _logs_left(name)):
        return left._replace(log=str(logs[-1]))
    return left


def log_of_instance(directory: RunDirectory, name: str | None) -> tuple[Path, int | None]:
    """Return an instance's log file, also after its end, and the user who must own it, None for any.

    The owner is for root, who can read files that the daemon's user cannot. Raises MissingInput if there is
    no log file, and as `find_instance` does.
    """
    try:
        instance = find_instance(directory, name)
    except Unavailable:
        ended = last_state_of(directory, name)
        if ended is not None and ended.log:
            return Path(ended.log), _other_owner(directory.instance(ended.name).directory)
        left = [] if name is None or "/" in name else _logs_left(name)
        if not left:
            raise
        return left[-1], _other_owner(left[-1].parent)
    file = status_of_instance(instance)["log"]
    if not file:
        remedy = f"it goes to stderr, syslog or the journal: journalctl -t {instance.name}"
        raise MissingInput(f"{instance.name} has no log file", remedy=remedy)
    return Path(file), _other_owner(instance.directory)


def events_of_instance(directory: RunDirectory, name: str | None) -> tuple[Path, int | None]:
    """Return an instance's file of events, also after its end, and the user who must own it, None for any.

    Raises MissingInput if there is none, and as `find_instance` does.
    """
    try:
        instance = find_instance(directory, name)
    except Unavailable:
        ended = last_state_of(directory, name)
        if ended is not None and not ended.log:
            instance = directory.instance(ended.name)
            return instance.directory / f"{instance.name}{EVENTS_SUFFIX}", _other_owner(instance.directory)
        log, owner = log_of_instance(directory, name)
        return Path(f"{log}{EVENTS_SUFFIX}"), owner
    if not (file := status_of_instance(instance)["events_file"]):
        raise MissingInput(f"{instance.name} has no file of events", remedy="the log says why")
    return Path(file), _other_owner(instance.directory)


def _other_owner(directory: Path) -> int | None:
    """Return the owner of a daemon's directory if this process is root and the owner is not, else None."""
    try:
        return (directory.lstat().st_uid or None) if os.geteuid() == 0 else None
    except FileNotFoundError:
        return None


def _logs_left(name: str) -> list[Path]:
    """Return the logs in the default places for a name, the latest last."""
    logs = [log for log in default_logs(name, os.environ) if _is_there(log)]
    return sorted(logs, key=lambda log: log.stat().st_mtime)


def status_of_instance(instance: Instance, timeout: float = _ANSWERED) -> dict[str, Any]:
    """Request the status of an instance. Raises a TamedError if there is no answer in so many seconds."""
    answer = _ask(instance, {"command": "status"}, timeout)
    with _understood(instance):
        return read_status(answer)


def stop_instance(
    instance: Instance,
    *,
    timeout: float | None,
    force: bool,
    progress: Callable[[dict[str, Any]], None],
) -> bool:
    """Stop an instance and wait at most so many seconds for its end; return whether it has ended.

    ``progress`` is called with its status from time to time. With ``force``, an instance that does not end in
    time is ended at once, with all its processes. Raises Unavailable if it does not run, PermissionRefused if
    it belongs to another user, and SystemRefused if a process of it cannot be ended.
    """
    handle = ProcessHandle.found_by(instance.holder)
    if handle is None:
        raise Unavailable(f"{instance.name} is not running")
    with handle:
        handle.signal(signal.SIGTERM)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not handle.wait_gone(_LOOK):
            if deadline is not None and time.monotonic() > deadline:
                return force and _end(instance.name, handle)
            try:
                progress(status_of_instance(instance, timeout=_LOOK))
            except TamedError:
                continue  # it is about to end, or too busy
    instance.remove_if_empty()
    forget_plan(instance)
    return True


Waiting = Callable[[str], object]
"""Called with each operation for which a request waits."""


def reload_instance(instance: Instance, waiting: Waiting) -> Report:
    """Replace the workers of an instance with new ones, from the current files and code; return the outcome.

    Waits without a limit. If the reload fails, the instance goes on as before.
    """
    return _request(instance, {"command": "reload"}, waiting, "reloaded")


def reopen_instance(instance: Instance) -> Report:
    """Let an instance reopen its log file; return the outcome."""
    return _request(instance, {"command": "reopen"}, None, "reopened", timeout=_ANSWERED)


def upgrade_instance(instance: Instance, waiting: Waiting) -> Report:
    """Replace the program of an instance's supervisor, and then reload; return the outcome.

    Waits without a limit. If the upgrade fails, the instance goes on as before.
    """
    report = _request(instance, {"command": "upgrade"}, waiting, "reloaded")
    return report._replace(text=report.text.replace("was reloaded", "was upgraded", 1))


def scale_instance(instance: Instance, workers: int, waiting: Waiting, *, yes: bool) -> Report:
    """Scale an instance to this number of workers; wait until they are ready.

    ``yes`` confirms a very large number.
    """
    return _request(instance, {"command": "scale", "workers": workers, "yes": yes}, waiting, "scaled")


def _ask(
    instance: Instance, request: Message, timeout: float | None, waiting: Waiting | None = None
) -> Message:
    deadline = time.monotonic() + (_SWEPT if timeout is None else min(_SWEPT, timeout))
    while True:
        _wait_until_found(instance, deadline)
        if (pid := instance.holder()) is None:
            raise Unavailable(f"{instance.name} is not running")
        try:
            return ask(instance.socket, request, timeout, waiting, holder=pid)
        except Unavailable as error:
            # The file exists, but no process listens: the socket is being created, or will be replaced soon.
            if not isinstance(error.__cause__, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
        time.sleep(_GLANCE)


def _wait_until_found(instance: Instance, deadline: float) -> None:
    """Wait until an instance has created its files again, if a cleaner has removed them."""
    while not _is_there(instance.socket) and instance.is_running and time.monotonic() < deadline:
        time.sleep(_GLANCE)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that this user cannot read: the request will fail with that reason


def _request(
    instance: Instance, request: Message, waiting: Waiting | None, key: str, timeout: float | None = None
) -> Report:
    answer = _ask(instance, request, timeout, waiting)
    with _understood(instance):
        if "fault" in answer:
            lines, status = read_fault(answer)
            return Report(ready=False, text="\n".join(lines), status=status, pid=None)
        warnings = [f"warning: {each}" for each in read_texts(answer, "warnings")]
        text = str(read_number(answer, key)) if key == "scaled" else read_text(answer, key)
        return Report(ready=True, text="\n".join([text, *warnings]), status=0, pid=None)


@contextmanager
def _understood(instance: Instance) -> Iterator[None]:
    """Raise SystemRefused for an invalid answer."""
    try:
        yield
    except InvalidMessage as invalid:
        what = f"cannot ask {instance.socket}"
        raise SystemRefused(what, f"its answer cannot be understood: {invalid}") from invalid


def restart_instance(instance: Instance, progress: Callable[[dict[str, Any]], None]) -> Report:
    """Stop an instance, without a limit for its draining, and start it again; return the outcome.

    The start uses the stored plan, this user, the environment of this process and the current files. The
    instance is not stopped if another user has started it (see `kept_plan` for the errors), or if the files
    have an error.
    """
    _wait_until_found(instance, time.monotonic() + _SWEPT)
    if (pid := instance.holder()) is None:
        raise Unavailable(f"{instance.name} is not running")
    plan = kept_plan(plan_path(instance), pid)
    plan = plan_again(plan, Reading.entering(job_again(plan)))
    identity = Identity.resolve(plan.user, plan.group) if plan.user or plan.group else None
    stop_instance(instance, timeout=None, force=False, progress=progress)
    RunDirectory(instance.directory.parent).create(instance.name, owner_of(identity))
    if plan.log.path == plan.default_log:
        make_log_folder(Path(plan.default_log), owner_of(identity))
    report = launch(plan._replace(plan_file=str(plan_path(instance))))
    if not report.ready:
        forget_plan(instance)
    return report


def _end(name: str, handle: ProcessHandle) -> bool:
    """End a supervisor and all its descendants; return whether it has ended, and then they have too."""
    below = descendants_of(handle.pid)
    handle.signal(signal.SIGQUIT)  # it ends its workers, and their children
    if not handle.wait_gone(_PATIENCE):
        below += descendants_of(handle.pid)
        handle.signal(signal.SIGKILL)
        if not handle.wait_gone(_LAST):
            return False
    deadline = time.monotonic() + _LAST
    while left := [each for each in below if each.is_there]:
        if time.monotonic() > deadline:
            pids = ", ".join(str(each.pid) for each in left)
            raise SystemRefused(
                f"{name} has ended, but not all its processes", f"still running: {pids}", "see ps(1)"
            )
        for each in left:
            _kill(each)
        time.sleep(_GLANCE)
    return True


def _kill(process: ProcessEntry) -> None:
    handle = ProcessHandle.open(process.pid)
    if handle is not None:
        with handle:
            if process.is_there:  # the handle is open now, so the pid cannot be of another process
                handle.signal(signal.SIGKILL)
