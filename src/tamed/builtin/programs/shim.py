"""The processes between Tamed and a program: nothing of a program is left when it is over.

Three kinds of process take part::

    Tamed ── fork server ── shim ── program ── whatever it starts
                         └─ shim ── program

The **fork server** is a small process that Tamed starts once for each service, and that forks a shim for each
program: forking a process with one thread and little memory is cheap and safe, forking Tamed is neither. The
**shim** runs the program, and reaps all its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)): processes that a
program leaves behind, even daemons in their own sessions, become children of the shim, which ends them.
Between Tamed and each shim is a channel. Its end means "stop the program", so if Tamed is killed, its
programs end without any action of Tamed.

Both ignore signals: a terminal or a service manager sends those to all processes at once, and Tamed decides
in which order programs stop.

The fork server is run as ``python -m tamed.builtin.programs.shim NAME``, with its control socket on
descriptor 0; the name is for lists of processes. Each message on the socket is one byte with descriptors: a
shim's channel, and the descriptors of its program. At the end of the socket the fork server waits for its
shims, and ends. This file imports only what these processes need; Tamed's side is ``process.py``.

A shim has one thread. So a child of it may do things between fork and exec (see `launch`) that would not be
safe in a child of Tamed itself.
"""

import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn, Self

from tamed._os.descriptors import close_all, place_descriptors, receive_descriptors, replace_with_null
from tamed._os.fork import default_signals
from tamed._os.identity import Identity, become
from tamed._os.proc import children_of
from tamed._os.syscalls import be_subreaper, die_with_parent, forbid_new_privileges, leave_keyring

__all__ = ["ForkServer", "LaunchFailed", "Program", "keep", "launch", "main"]

_IGNORED: Final = [signal.Signals[f"SIG{name}"] for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")]

_MOST: Final = 253
"""Descriptors in a message: SCM_MAX_FD of unix(7)."""

_POLL: Final = 0.05
"""Seconds between two checks for adopted children: the kernel does not report an adoption."""

_FIRST_PASSED: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


class Program(NamedTuple):
    """The data with which a shim runs and ends a program.

    ``command`` is the program and its arguments. A program without a slash is looked for in the ``PATH`` of
    ``environment``. ``directory`` "", ``umask`` None and ``identity`` None mean those of Tamed.
    ``no_new_privileges`` is the flag of prctl(2). ``limits`` are soft and hard limits by the names of
    getrlimit(2) in lower case, such as ``nofile``. ``stop_signal`` asks the program to end; after
    ``stop_timeout`` seconds it is killed. With ``is_trial`` the program is not executed, only looked for, as
    the user and in the directory in which it would run.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = ""
    umask: int | None = None
    identity: Identity | None = None
    no_new_privileges: bool = False
    limits: Mapping[str, int] = {}
    stop_signal: int = signal.SIGTERM
    stop_timeout: float = 10.0
    is_trial: bool = False

    def encode(self) -> bytes:
        """Return the program as one line of JSON, for the channel to its shim."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read the output of `encode`."""
        fields: dict[str, Any] = json.loads(line)
        command, identity = fields.pop("command"), fields.pop("identity")
        if identity is not None:
            uid, gid, groups, *texts = identity
            identity = Identity(uid, gid, tuple(groups), *texts)
        return cls(tuple(command), identity=identity, **fields)


class LaunchFailed(Exception):
    """A program cannot be run: ``step`` failed, with the error ``number`` of errno(3)."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


def launch(program: Program, descriptors: Sequence[int]) -> int:
    """Run a program in a session of its own, and return its pid once it is executed.

    ``descriptors`` become its 0, 1 and 2 and, from 3 on, the sockets that are passed to it. Raises
    LaunchFailed; then no process is left.
    """
    result, report = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(program, descriptors, report, parent)
    os.close(report)
    with os.fdopen(result, "rb") as pipe:  # the exec closes the child's end
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        number, _, step = failure.decode().partition(" ")
        raise LaunchFailed(step, int(number))
    return pid


def _become(program: Program, descriptors: Sequence[int], report: int, parent: int) -> NoReturn:
    """Take all steps in the child, the last of which is the exec; report the first failure."""
    try:
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, max(_FIRST_PASSED, len(descriptors)))
        for step, act in _steps(program, descriptors, parent):
            try:
                act()
            except (OSError, ValueError) as error:
                # The module `resource` raises ValueError for EPERM.
                number = error.errno if isinstance(error, OSError) else errno.EPERM
                os.write(report, f"{number or 0} {step}".encode(errors="backslashreplace"))
                raise
    finally:
        os._exit(os.EX_OSERR)


def _steps(
    program: Program, descriptors: Sequence[int], parent: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each step in its order, with its name for messages."""
    yield "begin a session", os.setsid
    yield "pass its descriptors", partial(place_descriptors, dict(enumerate(descriptors)))
    for name, value in program.limits.items():
        limit = getattr(resource, f"RLIMIT_{name.upper()}")
        yield f"limit {name} to {value}", partial(resource.setrlimit, limit, (value, value))
    if (identity := program.identity) is not None:
        become_user = f"become user {identity.name or identity.uid}"
        yield become_user, leave_keyring
        yield become_user, partial(become, identity)
    if program.directory:
        yield f"change to the directory {program.directory}", partial(os.chdir, program.directory)
    if program.umask is not None:
        yield "set its umask", partial(os.umask, program.umask)
    if program.no_new_privileges:
        yield "give up new privileges", forbid_new_privileges
    yield "reset its signals", _reset_signals
    yield "tie it to its shim", partial(_tie_to, parent)
    environment = dict(program.environment)
    if (passed := len(descriptors) - _FIRST_PASSED) > 0:  # the pid must be that of the reading process
        environment |= {"LISTEN_FDS": str(passed), "LISTEN_PID": str(os.getpid())}
    name = program.command[0]
    execute = partial(os.execvpe, name, program.command, environment)
    yield f"execute {name}", partial(_find, name, environment) if program.is_trial else execute


def _find(name: str, environment: Mapping[str, str]) -> None:
    """Raise OSError unless there is a program that can be executed."""
    paths = [name] if "/" in name else [f"{each}/{name}" for each in os.get_exec_path(environment)]
    files = [each for each in paths if os.path.isfile(each)]  # noqa: PTH113 - pathlib is not loaded here
    if not any(os.access(each, os.X_OK) for each in files):
        number = errno.EACCES if files else errno.ENOENT
        raise OSError(number, os.strerror(number))


def _reset_signals() -> None:
    """Reset all signal dispositions and the mask: an exec keeps ignored and blocked signals."""
    default_signals(ignored=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tie_to(parent: int) -> None:
    """Make the kernel kill this process when its shim dies; exit if that has already happened."""
    die_with_parent()
    if os.getppid() != parent:
        os._exit(os.EX_OSERR)


def main() -> None:
    """Run as a fork server; its shims are forks of it."""
    close_all(())  # programs must not inherit descriptors from Tamed's parent
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    be_subreaper()
    with socket.socket(fileno=os.dup(0)) as control:
        replace_with_null([0])
        ForkServer(control).serve()


class ForkServer:
    """Forks a shim for each message on the socket ``control``."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._watch = _ChildWatch()
        self._shims: set[int] = set()

    def serve(self) -> None:
        """Fork shims until the socket ends, and wait until they have ended."""
        is_open = True
        while is_open or self._shims:
            if self._watch.wait(self._control if is_open else None, None):
                is_open = self._fork_shim()
            self._reap()

    def _fork_shim(self) -> bool:
        """Fork a shim for the next message; return False if there is none."""
        data, descriptors = receive_descriptors(self._control, 1, _MOST)
        if not data:
            return False
        try:
            pid = os.fork()
        except OSError:  # Tamed sees the end of the channel
            pid = -1
        if pid == 0:
            self._become_shim(descriptors)
        if pid > 0:
            self._shims.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _become_shim(self, descriptors: list[int]) -> NoReturn:
        status = 1
        try:
            self._watch.close()
            self._control.close()
            channel, *others = descriptors
            keep(socket.socket(fileno=channel), others)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        try:
            for pid, status in _reap():
                self._shims.discard(pid)
                if status:
                    self._kill_orphans()
        except ChildProcessError:
            self._shims.clear()

    def _kill_orphans(self) -> None:
        """Kill the processes of a killed shim, which are now children of this process."""
        for pid in _children() - self._shims:
            _send(pid, signal.SIGKILL)


def keep(channel: socket.socket, descriptors: Sequence[int]) -> None:
    """Run as the shim of the program that the channel names, until none of its processes is left.

    ``descriptors`` are the program's, and closed here. The channel gets a line of JSON for each event:
    ``pid``, or ``failed`` (the step) and ``errno``; then ``status``, the wait status, when the program ends.
    """
    be_subreaper()
    watch = _ChildWatch()
    line = channel.makefile("rb").readline()
    if not line.endswith(b"\n"):  # Tamed has ended, or cancelled the launch
        return
    program = Program.decode(line)
    try:
        pid = launch(program, descriptors)
    except LaunchFailed as failure:
        _report(channel, {"failed": failure.step, "errno": failure.number})
        return
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    _report(channel, {"pid": pid})
    _Shim(channel, watch, program, pid).run()


class _Shim:
    """Watches a program from its start until none of its processes is left."""

    def __init__(self, channel: socket.socket, watch: "_ChildWatch", program: Program, pid: int) -> None:
        self._channel = channel
        self._watch = watch
        self._program = program
        self._pid = pid
        self._is_running = True
        self._has_children = True
        self._is_to_stop = False

    def run(self) -> None:
        """Wait until the program ends, or stop it; then end the processes that it left behind."""
        while self._is_running and not self._is_to_stop:
            self._wait(None)
        deadline = time.monotonic() + self._program.stop_timeout
        if self._is_running:
            _send(self._pid, self._program.stop_signal)
        while self._is_running and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
        self._stop_orphans(deadline)
        self._kill()

    def _stop_orphans(self, deadline: float) -> None:
        """Signal the processes that the program left behind, now our children, and wait for their end."""
        signalled: set[int] = set()
        while self._has_children and (left := deadline - time.monotonic()) > 0:
            for pid in _children() - signalled:
                _send(pid, self._program.stop_signal)
                signalled.add(pid)
            self._wait(min(left, _POLL))

    def _kill(self) -> None:
        """Kill all remaining processes: the group at once, then each generation as it is adopted."""
        if self._is_running:  # otherwise the pid may belong to another process
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        while self._has_children:
            for pid in _children():
                _send(pid, signal.SIGKILL)
            self._wait(_POLL)

    def _wait(self, seconds: float | None) -> None:
        channel = None if self._is_to_stop else self._channel
        if self._watch.wait(channel, seconds):
            self._is_to_stop = True
        try:
            for pid, status in _reap():
                if pid == self._pid:
                    self._is_running = False
                    _report(self._channel, {"status": status})
        except ChildProcessError:
            self._has_children = False


class _ChildWatch:
    """Waits until a child of this process ends, or a socket can be read."""

    def __init__(self) -> None:
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor needs a handler

    def wait(self, sock: socket.socket | None, seconds: float | None) -> bool:
        """Wait for that many seconds at most; return whether the socket can be read."""
        watched = [self._woken] if sock is None else [self._woken, sock]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._woken in readable:
            self._woken.recv(4096)
        return sock in readable

    def close(self) -> None:
        """Stop watching, in a fork that has children of its own."""
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._waker.close()


def _report(channel: socket.socket, message: dict[str, object]) -> None:
    with suppress(OSError):  # Tamed has ended
        channel.sendall(json.dumps(message).encode() + b"\n")


def _send(pid: int, number: int) -> None:
    """Send a signal to a child that may have ended, or may not be signalled (a set-user-ID program)."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _reap() -> Iterator[tuple[int, int]]:
    """Yield pid and wait status of each child that has ended; raise ChildProcessError if none is left."""
    while (ended := os.waitpid(-1, os.WNOHANG))[0]:
        yield ended


def _children() -> set[int]:
    """Return the pids of this process's children, adopted ones too; none where there is no ``/proc``.

    A child's pid is not given to another process before it is reaped, so it can be signalled safely.
    """
    return {each.pid for each in children_of(os.getpid())}


if __name__ == "__main__":
    main()
