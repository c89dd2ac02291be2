"""Instances: the daemons of a run directory. Finding one, requesting its status, and stopping it.

People and scripts wait for `tamed status` and `tamed stop`, so this module loads only what they need. Starts,
reloads and logs are in the modules beside it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from tamed._os.proc import descendants_of
from tamed.control.client import ask, read_answered_stacks, read_status
from tamed.errors import PermissionRefused, SystemRefused, TamedError, Unavailable, UsageError
from tamed.ipc.message import InvalidMessage, read_objects
from tamed.supervisor.plan_file import forget_plan, save_plan, stored_plan
from tamed.unix.lock import holder
from tamed.unix.process import ProcessHandle
from tamed.unix.rundir import RunDirectory, default_run_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from tamed._os.proc import ProcessEntry
    from tamed.ipc.message import Message
    from tamed.unix.rundir import Instance

__all__ = [
    "ANSWERED",
    "SWEPT",
    "Waiting",
    "ask_instance",
    "exists",
    "find_instance",
    "other_owner",
    "run_directory",
    "stacks_of_instance",
    "status_of_instance",
    "stop_instance",
    "trusted_instance",
    "understood",
    "wait_until_found",
]

Waiting = Callable[[str], object]
"""Called with the name of each operation that a request waits for."""

ANSWERED = 10.0
"""Timeout, in seconds, for an answer that waits for no operation."""

SWEPT = 5.0
"""Timeout, in seconds, for an instance to create removed files again."""

_LOOK = 0.5  # seconds between two status requests to a stopping instance
_GLANCE = 0.05  # seconds between two checks of files or processes
_PATIENCE = 15.0  # seconds for a supervisor to end all its processes
_LAST = 5.0  # seconds for killed processes to end


def run_directory(path: Path | None) -> RunDirectory:
    """Return this run directory, or by default that of this user.

    Raises PermissionRefused if another user could change it.
    """
    directory = RunDirectory((path or default_run_directory(os.environ)).absolute())
    directory.require_trusted()
    return directory


def find_instance(directory: RunDirectory, name: str | None) -> Instance:
    """Return the instance of a name, or the only running one.

    A name with a slash, which is no valid name of an instance, is the path of a pid file, for example of
    twistd. Raises Unavailable if the instance does not run, UsageError if several run and no name is given,
    and PermissionRefused if another user could have created the instance's files.
    """
    running = directory.running()
    names = ", ".join(each.name for each in running)
    if name is not None:
        instance = _holder_among(running, Path(name)) if "/" in name else trusted_instance(directory, name)
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


def trusted_instance(directory: RunDirectory, name: str) -> Instance:
    """Return the instance of a name. Raises PermissionRefused if another user could have created it."""
    instance = directory.instance(name)
    instance.require_trusted()
    return instance


def other_owner(directory: Path) -> int | None:
    """Return the owner of a daemon's directory if this process is root and the owner is not, else None.

    Root must read no other user's file there: that user could put a link in its place.
    """
    try:
        return (directory.lstat().st_uid or None) if os.geteuid() == 0 else None
    except FileNotFoundError:
        return None


def _holder_among(running: Sequence[Instance], pid_file: Path) -> Instance | None:
    pid = holder(pid_file)
    return next((each for each in running if holder(each.pid_file) == pid), None)


def status_of_instance(instance: Instance, timeout: float = ANSWERED) -> dict[str, Any]:
    """Request the status of an instance. Raises a TamedError if there is no answer in so many seconds."""
    answer = ask_instance(instance, {"command": "status"}, timeout)
    with understood(instance):
        return read_status(answer)


def stacks_of_instance(instance: Instance) -> list[dict[str, Any]]:
    """Request the stacks of the threads and tasks of each worker. Raises as `ask_instance` does."""
    answer = ask_instance(instance, {"command": "stacks"}, ANSWERED)
    with understood(instance):
        return [read_answered_stacks(each) for each in read_objects(answer, "stacks")]


def stop_instance(
    instance: Instance,
    *,
    timeout: float | None,
    force: bool,
    progress: Callable[[dict[str, Any]], None],
    keep_plan: bool = False,
) -> bool:
    """Stop an instance and wait at most so many seconds for its end; return whether it has ended.

    ``progress`` is called with its status about twice a second. With ``force``, an instance that does not end
    in time is killed, with all its processes. ``keep_plan`` keeps the plan of an instance that this user
    started with `start`, for `restart_instance`. Raises Unavailable if it is not running, PermissionRefused
    if it belongs to another user, and SystemRefused if one of its processes cannot be killed.
    """
    handle = ProcessHandle.found_by(instance.holder)
    if handle is None:
        raise Unavailable(f"{instance.name} is not running")
    plan = stored_plan(instance) if keep_plan else None
    with handle:
        try:
            handle.signal(signal.SIGTERM)
        except PermissionRefused as error:
            what = f"cannot stop {instance.name}"
            raise PermissionRefused(what, f"{error.what}: {error.why}", error.remedy) from error
        deadline = None if timeout is None else time.monotonic() + timeout
        while not handle.wait_gone(_LOOK):
            if deadline is not None and time.monotonic() > deadline:
                return force and _end(instance.name, handle)
            try:
                progress(status_of_instance(instance, timeout=_LOOK))
            except TamedError:
                continue  # it is about to end, or is too busy to answer
    instance.remove_if_empty()
    if plan is None:
        forget_plan(instance)
    else:
        save_plan(instance, plan)
    return True


def ask_instance(
    instance: Instance, request: Message, timeout: float | None, waiting: Waiting | None = None
) -> Message:
    """Send a request to an instance, and return its answer.

    Waits for the control socket if a cleaner has removed it. Raises Unavailable if the instance does not run,
    and as `ask` does.
    """
    deadline = time.monotonic() + (SWEPT if timeout is None else min(SWEPT, timeout))
    while True:
        wait_until_found(instance, deadline)
        if (pid := instance.holder()) is None:
            raise Unavailable(f"{instance.name} is not running")
        try:
            return ask(instance.socket, request, timeout, waiting, holder=pid)
        except Unavailable as error:
            # The file exists, but no process listens: the socket is being created, or will be replaced soon.
            if not isinstance(error.__cause__, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
        time.sleep(_GLANCE)


def wait_until_found(instance: Instance, deadline: float) -> None:
    """Wait until an instance has created its files again, if a cleaner has removed them."""
    while not exists(instance.socket) and instance.is_running and time.monotonic() < deadline:
        time.sleep(_GLANCE)


def exists(path: Path) -> bool:
    """Return whether a file exists, as far as this user can see."""
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that this user cannot read: the request will fail with that reason


@contextmanager
def understood(instance: Instance) -> Iterator[None]:
    """Raise SystemRefused for an invalid answer."""
    try:
        yield
    except InvalidMessage as invalid:
        what = f"cannot ask {instance.socket}"
        raise SystemRefused(what, f"invalid answer: {invalid}") from invalid


def _end(name: str, handle: ProcessHandle) -> bool:
    """Kill a supervisor and all its descendants; return whether it has ended, and then they have, too."""
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
