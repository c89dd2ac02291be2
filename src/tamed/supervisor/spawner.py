"""Spawning the children of a supervisor, with their interpreter, environment, privileges and descriptors.

A child has its channel on descriptor 3 and its log on 4; its output goes to the supervisor too, and its input
is empty. All other descriptors are closed, including those left by the previous program in this process. It
leads a session of its own, so it has no terminal: the supervisor handles Ctrl-C, a worker cannot inject input
into the operator's shell, and its child processes can be ended with its process group.

If the daemon runs as another user, the process becomes that user before it executes the command: root neither
runs nor loads code that the user could have changed.

The command makes the first template in the same way: see `tamed.control.first_template`.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple, NoReturn, Self

from tamed._os.descriptors import close_all, place_descriptors
from tamed._os.fork import default_signals, own_nothing
from tamed._os.identity import Identity
from tamed._os.limits import limit_open_files
from tamed.ipc.channel import CHANNEL, RECORDS
from tamed.ipc.message import read_number
from tamed.supervisor.plan import Plan
from tamed.unix.privileges import ROOT_FLAGS, Capability, drop_privileges, roots_environ
from tamed.unix.reaper import signal_group

__all__ = ["FAILED", "TEMPLATE", "ChildPipes", "FirstTemplate", "Spawner", "become_child", "spawn"]

FAILED = 71  # os.EX_OSERR
"""The status of a process that could not execute its command."""

TEMPLATE = ("tamed.worker", "template")
"""The module of a template, and the word for it in process listings, where a worker has its number."""

# The service manager sets these for the supervisor, not for the workers.
_NOT_FOR_WORKERS = (
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FDSTORE",
)

_PIPE_SIZE = 1 << 20  # bytes that a worker can print or log while the supervisor is busy


class Spawner:
    """Spawns the children of a plan. ``environ`` is the environment of the supervisor.

    With ``limits_files``, a child gets the plan's limit of open files, which a supervisor has, and its
    children inherit.
    """

    def __init__(
        self,
        plan: Plan,
        identity: Identity | None,
        environ: Mapping[str, str],
        *,
        limits_files: bool = False,
    ) -> None:
        self._plan = plan
        self._identity = identity
        self._is_privileged = identity is not None and not identity.is_current
        self._max_files = plan.max_files if limits_files else None
        python = dict(each.split("=", 1) for each in plan.interpreter_environ)
        self.environ = {
            name: value for name, value in {**environ, **python}.items() if name not in _NOT_FOR_WORKERS
        }

    @property
    def is_privileged(self) -> bool:
        """Whether this process has rights that the plan's user does not have."""
        return self._is_privileged

    @property
    def child_environ(self) -> Mapping[str, str]:
        """The environment of a child that runs as the plan's user."""
        return self.environ if self._identity is None else self._identity.environ_of(self.environ)

    @property
    def has_identity(self) -> bool:
        """Whether the plan names the user that the daemon runs as."""
        return self._identity is not None

    def spawn(
        self,
        channel: int,
        pipes: tuple[int, int, int],
        module: str,
        *words: str,
        interpreter: Sequence[str] | None = None,
    ) -> int:
        """Run a module of Tamed in a child with copies of these descriptors; return its pid.

        ``pipes`` are those of `ChildPipes`. ``words`` are shown in process listings. ``interpreter`` is by
        default that of the plan. Raises OSError if the system cannot start a process.
        """
        stays_root = self._is_privileged and self._plan.prepare_as_root
        flags = ROOT_FLAGS if stays_root else ()
        records, output, directory = pipes
        return spawn(
            [*(interpreter or self._plan.interpreter), *flags, "-m", module, self._plan.name, *words],
            roots_environ(self.environ) if stays_root else self.child_environ,
            channel=channel,
            records=records,
            output=output,
            directory=directory,
            become=self._become,
        )

    def _become(self) -> None:
        if self._max_files is not None:
            limit_open_files(self._max_files)
        if self._is_privileged and not self._plan.prepare_as_root:
            self.drop_privileges()

    def drop_privileges(self) -> None:
        """Become the plan's user, if it names one, permanently.

        Raises TamedError if that is impossible.
        """
        if self._identity is not None:
            kept = {Capability.parse(name) for name in self._plan.keep_capabilities}
            drop_privileges(self._identity, keep=kept)
        self._is_privileged = False


def spawn(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    channel: int,
    records: int,
    output: int,
    directory: int,
    become: Callable[[], object] = lambda: None,
) -> int:
    """Run a command as a worker in an open directory, with copies of three descriptors; return its pid.

    ``become`` is called in the new process just before it executes the command, to change the user. Raises
    OSError if no process can be created. If the command cannot be executed, the process ends with status 71
    and prints the reason. The caller must have one thread only.
    """
    # The child shares the wake-up descriptor for signals: a signal that the child gets before it has reset
    # our handlers would be reported to us, and the child would lose it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            placed = {1: output, 2: output, CHANNEL: channel, RECORDS: records}
            _execute(command, environ, placed, directory, become)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _execute(
    command: Sequence[str],
    environ: Mapping[str, str],
    descriptors: Mapping[int, int],
    directory: int,
    become: Callable[[], object],
) -> NoReturn:
    try:
        become_child(descriptors, directory)
        become()
        os.execve(command[0], list(command), dict(environ))
    except BaseException as error:
        os.write(2, f"tamed: cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(FAILED)


def become_child(descriptors: Mapping[int, int], directory: int) -> None:
    """Make a forked process independent of its parent.

    It leads a session of its own in an open directory, with the default action for each signal, an empty
    input, and copies of ``descriptors`` at the numbers that are their keys; all others are closed.
    """
    os.setsid()
    default_signals(ignored=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.fchdir(directory)
    place_descriptors({0: os.open(os.devnull, os.O_RDONLY), **descriptors})
    close_all(descriptors)
    own_nothing()


class ChildPipes:
    """The pipes for the records and the output of a child to come, and its working directory.

    ``theirs`` are the descriptors for the child: the writing ends, and the directory. Raises OSError if the
    directory is gone, or the system refuses a pipe.
    """

    def __init__(self, directory: str) -> None:
        self._theirs = ExitStack()
        self._ours = ExitStack()
        try:
            (self._records, records), (self._output, output) = self._pipe(), self._pipe()
            opened = _opened(directory)
        except BaseException:
            self.close()
            raise
        self._theirs.callback(os.close, opened)
        self.theirs = records, output, opened

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._ours.callback(os.close, reading)
        self._theirs.callback(os.close, writing)
        with suppress(OSError, AttributeError):  # Linux only, and within this user's limit
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return reading, writing

    def close_theirs(self) -> None:
        """Close the descriptors for the child: it has copies."""
        self._theirs.close()

    @property
    def ours(self) -> tuple[int, int]:
        """The reading ends, for records and output."""
        return self._records, self._output

    def take_ours(self) -> tuple[int, int]:
        """Return the reading ends, for records and output; the caller must close them."""
        self._ours.pop_all()
        return self.ours

    def close(self) -> None:
        """Close all remaining descriptors."""
        self._theirs.close()
        self._ours.close()


def _opened(directory: str) -> int:
    """Open a working directory for a child. Raises OSError if it is gone.

    If root started the daemon in a folder that its user cannot enter, the supervisor is still in it.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(directory, flags)
    except PermissionError:
        return os.open(".", flags)


class FirstTemplate(NamedTuple):
    """The template that was made before the supervisor had its plan: see `tamed.control.first_template`.

    It has our ends of the template's channel and of its pipes.
    """

    pid: int
    channel: int
    records: int
    output: int

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """Return the template of a plan that was handed over, if it has one."""
        data = plan.template
        return None if data is None else cls(*(read_number(data, field) for field in cls._fields))

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """The descriptors that the supervisor inherits for it."""
        return self.channel, self.records, self.output

    def end(self) -> None:
        """Kill the process and wait for its end, because no supervisor will use it."""
        with suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored: the kernel reaps it
            signal_group(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
