"""From a fork to the program: what a new process does before it is one.

It happens in a fork of a keeper, which has one thread, so everything is allowed here that is not after a
fork of Tamed itself.
"""

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

from tamed._fork import leave_keyring
from tamed.builtin.keeper._prctl import die_with_parent, gain_no_privileges
from tamed.builtin.keeper._program import Identity, Program

__all__ = ["LaunchFailed", "launch"]

_FIRST_PASSED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_FAILED = 71  # os.EX_OSERR


class LaunchFailed(Exception):
    """A program cannot be run: at which step, and what the system said (errno(3))."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


def launch(program: Program, descriptors: Sequence[int]) -> int:
    """Run a program in a session of its own and return its pid once it is executed.

    ``descriptors`` become its 0, 1, 2 and, from 3 on, the sockets that are passed to it. Raises
    LaunchFailed; then no process is left.
    """
    told, teller = os.pipe()
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(program, descriptors, teller, keeper)
    os.close(teller)
    with os.fdopen(told, "rb") as pipe:  # the program's end is closed by its exec
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        number, _, step = failure.decode().partition(" ")
        raise LaunchFailed(step, int(number))
    return pid


def _become(program: Program, descriptors: Sequence[int], teller: int, keeper: int) -> NoReturn:
    try:
        teller = fcntl.fcntl(teller, fcntl.F_DUPFD_CLOEXEC, max(_FIRST_PASSED, len(descriptors)))
        for step, act in _steps(program, descriptors, keeper):
            _take(step, act, teller)
    finally:
        os._exit(_FAILED)


def _take(step: str, act: Callable[[], object], teller: int) -> None:
    try:
        act()
    except (OSError, ValueError) as error:
        # ValueError is how the module `resource` says EPERM.
        number = error.errno if isinstance(error, OSError) else errno.EPERM
        os.write(teller, f"{number or 0} {step}".encode(errors="backslashreplace"))
        raise


def _steps(
    program: Program, descriptors: Sequence[int], keeper: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is to be done, in this order, each with how a message calls it."""
    yield "begin a session", os.setsid
    yield "pass its descriptors", partial(_place, descriptors)
    for name, value in program.limits.items():
        yield f"limit {name} to {value}", partial(_limit, name, value)
    if program.identity is not None:
        yield f"become user {program.identity.name}", partial(_become_user, program.identity)
    if program.directory:
        yield f"change to the directory {program.directory}", partial(os.chdir, program.directory)
    if program.umask is not None:
        yield "set its umask", partial(os.umask, program.umask)
    if program.no_new_privileges:
        yield "give up new privileges", gain_no_privileges
    yield "forget signals", _forget_signals
    yield "tie it to its keeper", partial(_tie_to, keeper)
    environment = {**program.environment, **_listen_variables(len(descriptors) - _FIRST_PASSED)}
    name = program.command[0]
    yield f"execute {name}", partial(os.execvpe, name, program.command, environment)


def _place(descriptors: Sequence[int]) -> None:
    """Make each of them, in their order, one of 0, 1, 2 and so on."""
    # Copies above all the numbers first, so that none is overwritten before it is used.
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, len(descriptors)) for each in descriptors]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)


def _limit(name: str, value: int) -> None:
    resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))


def _become_user(identity: Identity) -> None:
    leave_keyring()
    os.setgroups(identity.groups)
    os.setgid(identity.gid)  # all three ids of a process that is root
    os.setuid(identity.uid)


def _forget_signals() -> None:
    """Let every signal do what it does by default: what is ignored or blocked stays so after exec."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tie_to(keeper: int) -> None:
    """Die when the keeper is killed, which may have happened already."""
    die_with_parent()
    if os.getppid() != keeper:
        os._exit(_FAILED)


def _listen_variables(passed: int) -> dict[str, str]:
    """Return what sd_listen_fds(3) reads; the pid must be that of the very process that reads it."""
    if passed <= 0:
        return {}
    return {"LISTEN_FDS": str(passed), "LISTEN_PID": str(os.getpid())}
