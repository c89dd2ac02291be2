"""A program as data, and the steps of a forked process up to the exec of the program.

`launch` runs in a shim (see ``shim.py``), which is a process with one thread. So a child of it may do things
between fork and exec that would not be safe in a child of Tamed itself.
"""

import errno
import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn, Self

from tamed._os.descriptors import place_descriptors
from tamed._os.fork import default_signals
from tamed._os.identity import Identity, become
from tamed._os.syscalls import die_with_parent, forbid_new_privileges, leave_keyring

__all__ = ["LaunchFailed", "Program", "launch"]

_FIRST_PASSED: Final = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


class Program(NamedTuple):
    """The data with which a shim runs and ends a program.

    ``command`` is the program and its arguments. A program without a slash is looked for in the ``PATH`` of
    ``environment``. ``directory`` "", ``umask`` None and ``identity`` None mean those of Tamed.
    ``no_new_privileges`` is the flag of prctl(2). ``limits`` are soft and hard limits by the names of
    getrlimit(2) in lower case, such as ``nofile``. ``stop_signal`` asks the program to end; after
    ``stop_timeout`` seconds it is killed. With ``is_trial`` the program is not
    executed, only looked for, as the user and in the directory in which it would run.
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
        yield f"become user {identity.name or identity.uid}", partial(_become_user, identity)
    if program.directory:
        yield f"change to the directory {program.directory}", partial(os.chdir, program.directory)
    if program.umask is not None:
        yield "set its umask", partial(os.umask, program.umask)
    if program.no_new_privileges:
        yield "give up new privileges", forbid_new_privileges
    yield "reset its signals", _reset_signals
    yield "tie it to its shim", partial(_tie_to, parent)
    environment = {**program.environment, **_listen_variables(len(descriptors) - _FIRST_PASSED)}
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


def _become_user(identity: Identity) -> None:
    leave_keyring()
    become(identity)


def _reset_signals() -> None:
    """Reset all signal dispositions and the mask: an exec keeps ignored and blocked signals."""
    default_signals(ignored=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tie_to(parent: int) -> None:
    """Make the kernel kill this process when its shim dies; exit if that has already happened."""
    die_with_parent()
    if os.getppid() != parent:
        os._exit(os.EX_OSERR)


def _listen_variables(passed: int) -> dict[str, str]:
    """Return the variables of sd_listen_fds(3); the pid must be that of the reading process."""
    if passed <= 0:
        return {}
    return {"LISTEN_FDS": str(passed), "LISTEN_PID": str(os.getpid())}
