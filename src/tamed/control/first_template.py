"""The first template, which loads in parallel with its supervisor, and the exec of that.

- `become_template`: the reader of a head start (`tamed.control.head_start`) becomes the template, if that is
  as good as a new interpreter: then what it has loaded is not loaded again. See `_is_as_new`.
- `become_supervisor`: a process of the command spawns the template, as a supervisor does
  (`tamed.supervisor.spawner`), and becomes the supervisor by exec. So the template is the child of the same
  process before and after.

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
from tamed._os.interrupts import INTERRUPTS, deliver_interrupts
from tamed._os.limits import limit_open_files
from tamed._os.proc import process_begin, show_program, show_words
from tamed._os.syscalls import be_subreaper
from tamed.ipc.channel import CHANNEL, RECORDS
from tamed.ipc.message import InvalidMessage, encode_message
from tamed.supervisor.plan import Plan
from tamed.supervisor.spawner import FAILED, TEMPLATE, ChildPipes, FirstTemplate, Spawner, become_child
from tamed.unix.privileges import ROOT_FLAGS, roots_environ

if TYPE_CHECKING:
    from importlib.abc import InspectLoader

__all__ = ["become_supervisor", "become_template", "with_template"]

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "GLIBC_")
_OURS = str(Path(__file__).parents[1]) + os.sep
_STANDARD = str(Path(os.__file__).parent) + os.sep


def become_supervisor(plan: Plan, first: FirstTemplate | None = None) -> NoReturn:
    """Execute the supervisor of a plan here, with its first template, which is spawned if it is not given."""
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
        plan = with_template(plan, identity, environ)
    descriptor = plan.hand_over()
    command = [*plan.interpreter, *flags, "-m", "tamed.supervisor", str(descriptor), plan.name]
    # Until the supervisor has its handlers: an interrupt would be a traceback of the module that it loads, a
    # stop would end it without a cleanup, and the kernel would drop what comes for pid 1.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        deliver_interrupts()
        os.execve(command[0], command, environ)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def with_template(plan: Plan, identity: Identity | None, environ: Mapping[str, str]) -> Plan:
    """Spawn the template of a plan, if there can be one; return the plan with it.

    ``environ`` is the environment of the supervisor to come, which this process must become; it has one
    thread.
    """
    if plan.preload:
        return plan
    spawner = Spawner(plan, identity, environ, limits_files=True)
    try:
        with _prepared(plan, plan.template_order) as (ours, theirs, pipes):
            interpreter = plan.worker_interpreter
            pid = spawner.spawn(theirs.fileno(), pipes.theirs, *TEMPLATE, interpreter=interpreter)
            return _inheriting(plan, FirstTemplate(pid, ours.detach(), *pipes.take_ours()))
    except (OSError, InvalidMessage):
        return plan


def become_template(plan: Plan, identity: Identity | None, given: Callable[[FirstTemplate], object]) -> None:
    """Become the template of a plan by Unwind, if that is as good as a new interpreter; else return.

    ``given`` is called before with our ends of its channel and pipes, which are closed then.
    """
    spawner = Spawner(plan, identity, os.environ)
    environ = spawner.child_environ
    words = words_of(TEMPLATE[0], plan.name, *TEMPLATE[1:])
    if plan.preload or threads() > 1 or spawner.is_privileged or not words or not _is_as_new(environ):
        return
    order = {**plan.template_order, "loaded": process_begin(plan.listen_pid)}
    with ExitStack() as held:
        try:
            ours, theirs, pipes = held.enter_context(_prepared(plan, order))
            channel, records, output, directory = map(os.dup, (theirs.fileno(), *pipes.theirs))
        except (OSError, InvalidMessage):
            return
        given(FirstTemplate(os.getpid(), ours.fileno(), *pipes.ours))
        placed = {1: output, 2: output, CHANNEL: channel, RECORDS: records}
        raise Unwind(partial(_begin, plan, environ, words, placed, directory))


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
        line = encode_message(order)
        ours.setblocking(False)  # nobody reads it yet
        if ours.send(line) < len(line):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        pipes = ChildPipes(plan.directory)
        held.callback(pipes.close)
        yield ours, theirs, pipes


def _is_as_new(environ: Mapping[str, str]) -> bool:
    """Return whether this process has loaded only what a new interpreter would load, too.

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


def _begin(
    plan: Plan, environ: Mapping[str, str], words: list[str], placed: Mapping[int, int], directory: int
) -> NoReturn:
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
