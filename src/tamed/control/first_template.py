"""The first template, which loads in parallel with its supervisor, and the exec of that.

- `become_template`: a process of the command becomes the template (`tamed.control.head_start`).
- `become_supervisor`: a process of the command makes the template as its child and becomes the supervisor by
  exec. So the template is the child of the same process before and after.

The template has the environment, rights and descriptors of one that the supervisor spawns
(`tamed.supervisor.spawner`). It is a process of the command if that is as good as a new interpreter: then
what the command has loaded is not loaded again. See `_is_as_new`. Otherwise it is a new interpreter.

There may be none, and then the supervisor spawns one when it needs it:

- if the system refuses to start it: the supervisor will get and report the same error;
- with ``--preload``: no code of the application may run before the supervisor holds the pid file;
- if the command has threads, because a plugin has started them.
"""

import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from tamed._os.beginning import MODULES, Unwind, has_options, leave_command, words_of
from tamed._os.fork import threads
from tamed._os.identity import Identity, becomes_another
from tamed._os.limits import limit_open_files
from tamed._os.proc import process_begin, show_program, show_words
from tamed._os.syscalls import be_subreaper
from tamed.ipc.message import InvalidMessage, encode_message
from tamed.supervisor.plan import Plan
from tamed.supervisor.spawner import TEMPLATE, ChildPipes, FirstTemplate, Spawner
from tamed.unix.privileges import ROOT_FLAGS, roots_environ
from tamed.unix.spawn import CHANNEL, FAILED, RECORDS, become_child

if TYPE_CHECKING:
    from importlib.abc import InspectLoader

__all__ = ["become_supervisor", "become_template", "with_template"]

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "GLIBC_")
_OURS = str(Path(__file__).parents[1]) + os.sep
_STANDARD = str(Path(os.__file__).parent) + os.sep


def become_supervisor(plan: Plan, first: FirstTemplate | None = None, *, may_fork: bool = False) -> NoReturn:
    """Execute the supervisor of a plan here, with its first template, which is made if it is not given.

    With ``may_fork``, Unwind is raised in that template.
    """
    be_subreaper(True)  # kept across exec, so the supervisor need not load ctypes for it
    environ: Mapping[str, str] = os.environ
    flags: tuple[str, ...] = ()
    identity = Identity.named(plan.user, plan.group)
    if becomes_another(identity):  # nothing that this user controls may be loaded in a process that is root
        environ, flags = roots_environ(os.environ), ROOT_FLAGS
        python = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PYTHON")]
        plan = plan._replace(interpreter_environ=python)
    if first is not None:
        plan = _inheriting(plan, first)
    elif threads() == 1:
        plan = with_template(plan, identity, environ, may_fork=may_fork)
    descriptor = plan.hand_over()
    command = [*plan.interpreter, *flags, "-m", "tamed.supervisor", str(descriptor), plan.name]
    os.execve(command[0], command, environ)


def with_template(
    plan: Plan, identity: Identity | None, environ: Mapping[str, str], *, may_fork: bool = False
) -> Plan:
    """Make the template of a plan, if there can be one; return the plan with it.

    ``environ`` is the environment of the supervisor to come, which this process must become; it has one
    thread. A fork is made only with ``may_fork``: it raises Unwind, so the callers must let that pass,
    and only their outermost, which is the command's, may catch it.
    """
    if plan.preload:
        return plan
    try:
        return _inheriting(plan, _made(plan, identity, environ, may_fork=may_fork))
    except (OSError, InvalidMessage):
        return plan


def become_template(plan: Plan, identity: Identity | None, given: Callable[[FirstTemplate], object]) -> None:
    """Become the template of a plan by Unwind, if that is as good as a new interpreter; else return.

    ``given`` is called before with our ends of its channel and pipes, which are closed then.
    """
    spawner = Spawner(plan, identity, os.environ)
    if plan.preload or threads() > 1 or not _may_be_forked(plan, spawner):
        return
    order = {**plan.template_order, "loaded": process_begin(plan.listen_pid)}
    with ExitStack() as held:
        try:
            ours, theirs, pipes = held.enter_context(_prepared(plan, order))
            rest = _beginning(plan, spawner.child_environ, theirs.fileno(), pipes.theirs)
        except (OSError, InvalidMessage):
            return
        given(FirstTemplate(os.getpid(), ours.fileno(), *pipes.ours))
        raise Unwind(rest)


def _made(
    plan: Plan, identity: Identity | None, environ: Mapping[str, str], *, may_fork: bool
) -> FirstTemplate:
    spawner = Spawner(plan, identity, environ, limits_files=True)
    is_fork = may_fork and _may_be_forked(plan, spawner)
    order = plan.template_order
    if is_fork:
        order["loaded"] = process_begin(plan.listen_pid)  # the command, which has forked this process
    with _prepared(plan, order) as (ours, theirs, pipes):
        if is_fork:
            pid = _forked(plan, spawner.child_environ, theirs.fileno(), pipes.theirs)
        else:
            interpreter = plan.worker_interpreter
            pid = spawner.spawn(theirs.fileno(), pipes.theirs, *TEMPLATE, interpreter=interpreter)
        return FirstTemplate(pid, ours.detach(), *pipes.take_ours())


def _inheriting(plan: Plan, first: FirstTemplate) -> Plan:
    """Return a plan with its first template, for a supervisor that inherits its descriptors by exec."""
    for descriptor in first.descriptors:
        os.set_inheritable(descriptor, True)
    return plan._replace(template=first._asdict())


@contextmanager
def _prepared(
    plan: Plan, order: Mapping[str, object]
) -> Iterator[tuple[socket.socket, socket.socket, ChildPipes]]:
    """Yield both ends of a channel in which the order is, and the pipes; close what is left of them."""
    with ExitStack() as held:
        ours, theirs = map(held.enter_context, socket.socketpair())
        _send_at_once(ours, encode_message(order))
        pipes = ChildPipes(plan.directory)
        held.callback(pipes.close)
        yield ours, theirs, pipes


def _send_at_once(sock: socket.socket, line: bytes) -> None:
    """Send a line to a process that does not read yet. Raises OSError if the socket's buffer is full."""
    sock.setblocking(False)
    if sock.send(line) < len(line):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


# A template that is forked.


def _may_be_forked(plan: Plan, spawner: Spawner) -> bool:
    return not spawner.is_privileged and _is_as_new(spawner.child_environ) and bool(_words(plan.name))


def _is_as_new(environ: Mapping[str, str]) -> bool:
    """Return whether a fork of this process has loaded only what a new interpreter would load, too.

    It must not have imported any module that is neither ours nor of the standard library, for example a
    plugin; it must have been started without options; and the variables that an interpreter reads at its
    start must be the same.
    """
    return (
        not has_options()
        and _read_at_start(environ) == _read_at_start(os.environ)
        and all(map(_is_known, sys.modules.keys() - MODULES))
    )


def _read_at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}


def _is_known(name: str) -> bool:
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        return name in sys.builtin_module_names or name.partition(".")[0] in sys.stdlib_module_names
    return file.startswith(_OURS) or (file.startswith(_STANDARD) and "-packages" not in file)


def _words(name: str) -> list[str]:
    return words_of(TEMPLATE[0], name, *TEMPLATE[1:])


def _forked(plan: Plan, environ: Mapping[str, str], channel: int, pipes: tuple[int, int, int]) -> int:
    """Fork this process, and return the pid; the child leaves all frames of the command, then `_begin`."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if pid == 0:
        try:
            rest = _beginning(plan, environ, channel, pipes)
        except OSError:
            os._exit(FAILED)  # two processes would go on as the supervisor
        raise Unwind(rest)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _beginning(
    plan: Plan, environ: Mapping[str, str], channel: int, pipes: tuple[int, int, int]
) -> Callable[[], NoReturn]:
    """Return the program of a template, with copies of these descriptors. Raises OSError."""
    channel, records, output, directory = map(os.dup, (channel, *pipes))
    placed = {1: output, 2: output, CHANNEL: channel, RECORDS: records}
    return partial(_begin, plan, environ, placed, directory)


def _begin(plan: Plan, environ: Mapping[str, str], placed: Mapping[int, int], directory: int) -> NoReturn:
    """Give up what a new process of Tamed would not have, and run the program of a template."""
    try:
        leave_command()
        gc.collect()  # objects of the command close their descriptors now, before these are other files
        become_child(placed, directory)
        # As an interpreter has them at its start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        if plan.max_files is not None:
            limit_open_files(plan.max_files)
        os.environ.clear()
        os.environ.update(environ)
        words = _words(plan.name)
        show_words(words, len(sys.orig_argv))
        show_program(Path(sys.executable).name)
        sys.argv[1:] = words[3:]
    except BaseException as error:
        os.write(placed[2], f"cannot become a template: {error}\n".encode())
        os._exit(FAILED)
    _run_as_main(f"{TEMPLATE[0]}.__main__")
    sys.exit()


def _run_as_main(name: str) -> None:
    """Run a module as ``-m`` does; as `runpy` does, but without its frames in each stack that is logged."""
    spec = find_spec(name)
    assert spec is not None
    module = sys.modules["__main__"] = module_from_spec(spec)
    module.__name__ = "__main__"
    sys.argv[0] = str(spec.origin)
    code = cast("InspectLoader", spec.loader).get_code(name)
    assert code is not None
    exec(code, vars(module))  # noqa: S102 - it is ours
