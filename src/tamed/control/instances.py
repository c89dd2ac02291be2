"""Instances: the daemons of a run directory. Finding one, sending it a request, and stopping it.

A request is one line on the control socket of its supervisor (see `tamed.supervisor.control`), and so is the
answer, which is not trusted. People and scripts wait for `tamed status` and `tamed stop`, so this module
loads only what they need. Starts and logs are in the modules beside it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from tamed._os.proc import descendants_of
from tamed._os.unix_sockets import connect_unix, peer_credentials
from tamed.errors import (
    PermissionRefused,
    SystemRefused,
    TamedError,
    Unavailable,
    UsageError,
    from_os_error,
)
from tamed.ipc.message import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    InvalidMessage,
    encode_message,
    parse_message,
    read_fault,
    read_objects,
    read_text,
    read_texts,
)
from tamed.supervisor.plan_file import forget_plan, plan_path, save_plan, stored_plan
from tamed.supervisor.reports import read_answered_stacks, read_status
from tamed.unix.lock import holder
from tamed.unix.process import ProcessHandle
from tamed.unix.rundir import RunDirectory, default_run_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeVar

    from tamed.ipc.message import Message
    from tamed.unix.rundir import Instance

    T = TypeVar("T")

__all__ = [
    "SWEPT",
    "Outcome",
    "Waiting",
    "answer_from",
    "ask",
    "ask_instance",
    "exists",
    "find_instance",
    "other_owner",
    "reload_instance",
    "reopen_instance",
    "resign_role",
    "run_directory",
    "scale_instance",
    "stacks_of_instance",
    "status_of_instance",
    "stop_instance",
    "trusted_instance",
    "upgrade_instance",
    "wait_until_found",
]

Waiting = Callable[[str], object]
"""Called with the name of each operation that a request waits for."""

Outcome = tuple[str, int]
"""The outcome of an operation: the text for the operator, and the exit status."""

_ANSWERED = 10.0  # seconds for an answer that waits for no operation

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
    if name is not None:
        if "/" in name:
            pid = holder(Path(name))
            instance = next((each for each in running if holder(each.pid_file) == pid), None)
        else:
            instance = trusted_instance(directory, name)
        if instance is None or not instance.is_running:
            others = ", ".join(each.name for each in running if each.name != name)
            remedy = f"running: {others}" if others else f"nothing runs in {directory.path}"
            raise Unavailable(f"{name} is not running", remedy=_elsewhere(directory) or remedy)
        return instance
    if not running:
        for each in directory.instances():
            each.require_trusted()
        why = f"there is no instance in {directory.path}"
        raise Unavailable("nothing is running", why, _elsewhere(directory))
    if len(running) > 1:
        names = ", ".join(each.name for each in running)
        raise UsageError("several instances run", names, "name one of them")
    return running[0]


def _elsewhere(directory: RunDirectory) -> str:
    """Return what runs in the default run directory of this user in another session; empty if nothing does.

    A session of cron or of ``su`` has no XDG_RUNTIME_DIR.
    """
    environ = dict(os.environ)
    if directory.path != default_run_directory(environ):
        return ""
    for place in (f"/run/user/{os.geteuid()}", ""):
        path = default_run_directory({**environ, "XDG_RUNTIME_DIR": place})
        with suppress(TamedError):
            names = [each.name for each in run_directory(path).running() if path != directory.path]
            if names:
                return f"running in {path}: {', '.join(names)}; add --rundir {path}"
    return ""


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


def status_of_instance(instance: Instance, timeout: float = _ANSWERED) -> dict[str, Any]:
    """Request the status of an instance. Raises a TamedError if there is no answer in so many seconds."""
    return ask_instance(instance, {"command": "status"}, read_status, timeout)


def stacks_of_instance(instance: Instance) -> list[dict[str, Any]]:
    """Request the stacks of the threads and tasks of each worker. Raises as `ask_instance` does."""

    def read(answer: Message) -> list[dict[str, Any]]:
        return [read_answered_stacks(each) for each in read_objects(answer, "stacks")]

    return ask_instance(instance, {"command": "stacks"}, read, _ANSWERED)


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
    if plan is not None and plan_path(instance).parent == instance.directory:
        save_plan(instance, plan)  # the daemon removes its own; this process may give up, or be killed
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


def reload_instance(instance: Instance, waiting: Waiting) -> Outcome:
    """Replace the workers of an instance with new ones, from the current files and code.

    Waits without a time limit. If the reload fails, the old workers continue.
    """
    return _operate(instance, {"command": "reload"}, "reloaded", waiting)


def reopen_instance(instance: Instance) -> Outcome:
    """Make an instance reopen its log file."""
    return _operate(instance, {"command": "reopen"}, "reopened")


def resign_role(instance: Instance, role: str, waiting: Waiting) -> Outcome:
    """Move a role of an instance to another worker; wait until one holds it, without a limit."""
    return _operate(instance, {"command": "resign", "role": role}, "resigned", waiting)


def upgrade_instance(instance: Instance, waiting: Waiting) -> Outcome:
    """Replace the program of an instance's supervisor, and then reload.

    Waits without a time limit. If the upgrade fails, the old program continues.
    """
    text, status = _operate(instance, {"command": "upgrade"}, "reloaded", waiting)
    return text.replace("was reloaded", "was upgraded", 1), status


def scale_instance(instance: Instance, workers: int, waiting: Waiting, *, yes: bool) -> Outcome:
    """Scale an instance to this number of workers; wait until they are ready.

    ``yes`` confirms a very large number.
    """
    return _operate(instance, {"command": "scale", "workers": workers, "yes": yes}, "scaled", waiting)


def _operate(instance: Instance, request: Message, key: str, waiting: Waiting | None = None) -> Outcome:
    """Request an operation; the answer has its result at a key, or a fault.

    There is a time limit only if it does not wait for other operations.
    """

    def read(answer: Message) -> Outcome:
        if "fault" in answer:
            lines, status = read_fault(answer)
            return "\n".join(lines), status
        warnings = [f"warning: {each}" for each in read_texts(answer, "warnings")]
        return "\n".join([read_text(answer, key), *warnings]), 0

    return ask_instance(instance, request, read, _ANSWERED if waiting is None else None, waiting)


def ask_instance(
    instance: Instance,
    request: Message,
    read: Callable[[Message], T],
    timeout: float | None,
    waiting: Waiting | None = None,
) -> T:
    """Send a request to an instance, and return its answer as ``read`` returns it.

    Waits for the control socket if a cleaner has removed it. Raises Unavailable if the instance does not run,
    SystemRefused for an answer for which ``read`` raises InvalidMessage, and as `ask` does.
    """
    deadline = time.monotonic() + (SWEPT if timeout is None else min(SWEPT, timeout))
    while True:
        wait_until_found(instance, deadline)
        if (pid := instance.holder()) is None:
            raise Unavailable(f"{instance.name} is not running")
        try:
            return read(ask(instance.socket, request, timeout, waiting, holder=pid))
        except InvalidMessage as invalid:
            raise SystemRefused(f"cannot ask {instance.socket}", f"invalid answer: {invalid}") from invalid
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


def ask(
    path: Path,
    request: Message,
    timeout: float | None = 10.0,
    waiting: Waiting | None = None,
    *,
    holder: int | None = None,
) -> Message:
    """Send a request to a supervisor's control socket and return its answer.

    ``waiting`` is called with each operation for which the request waits. ``holder`` is the pid of the
    process that must listen on the socket; it is compared with the pid that the kernel reports.

    Raises MissingInput if there is no socket, PermissionRefused if it belongs to another user or process,
    Unavailable if the supervisor ends without an answer, and SystemRefused if there is no valid answer within
    ``timeout`` seconds (None: no limit).
    """
    what = f"cannot ask {path}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        try:
            connect_unix(sock, path)
            if holder is not None and (listener := peer_credentials(sock).pid) != holder:
                raise PermissionRefused(what, f"process {listener} listens there, and {holder} is the daemon")
            progress = {} if waiting is None else {"progress": True}
            sock.sendall(encode_message(request | progress, LONGEST_REQUEST))
            answer = answer_from(sock, timeout, waiting)
        except (BrokenPipeError, ConnectionResetError):  # it has ended, and has not read the request
            answer = None
        except TimeoutError as error:
            raise SystemRefused(what, f"no answer within {timeout:g} seconds") from error
        except OSError as error:
            raise from_os_error(what, error) from error
        except InvalidMessage as invalid:
            raise SystemRefused(what, f"invalid answer: {invalid}") from invalid
    if answer is None:
        raise Unavailable(what, "the supervisor closed the connection without an answer")
    if "error" in answer:
        raise SystemRefused(what, answer["error"])
    return answer


def answer_from(sock: socket.socket, timeout: float | None, waiting: Waiting | None) -> Message | None:
    """Read up to the answer, and return it; None if there is none. The size of all data is bounded.

    Raises InvalidMessage for an invalid answer.
    """
    for line in _lines_from(sock, None if timeout is None else time.monotonic() + timeout):
        answer = parse_message(line, LONGEST_ANSWER)
        if "error" in answer:
            read_text(answer, "error")
        if waiting is None or "waiting" not in answer:
            return answer
        waiting(read_text(answer, "waiting"))
    return None


def _lines_from(sock: socket.socket, deadline: float | None) -> Iterator[bytes]:
    count = 0
    chunks: list[bytes] = []
    while count <= LONGEST_ANSWER:
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (chunk := sock.recv(LONGEST_REQUEST)):
            return
        count += len(chunk)
        chunks.append(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(chunks).split(b"\n")
            chunks = [rest]
            yield from lines
    raise InvalidMessage(f"longer than {LONGEST_ANSWER} bytes")


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
            with ProcessHandle.open(each.pid) or nullcontext() as found:
                if found is not None and each.is_there:  # open now: the pid is of no other process
                    found.signal(signal.SIGKILL)
        time.sleep(_GLANCE)
    return True
