"""Making the first template, which loads in parallel with its supervisor.

The command makes it just before it becomes the supervisor by exec. So each has a core of its own, and the
first worker is ready sooner. The template is a child of the same process before and after the exec. It has
the environment, rights and descriptors of one that the supervisor spawns (`tamed.supervisor.spawner`).

It is a fork of the command if that is as good as a new interpreter: then what the command has loaded is not
loaded again. See `_is_as_new`. Otherwise it is a new interpreter.

The plan contains its pid. Without one, the supervisor spawns a template when it needs one. There is none

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
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from tamed._os.beginning import MODULES, PATH, Unwind
from tamed._os.identity import Identity
from tamed._os.limits import limit_open_files
from tamed._os.proc import process_begin, show_program, show_words
from tamed.ipc.message import InvalidMessage, encode_message
from tamed.supervisor.plan import Plan
from tamed.supervisor.spawner import TEMPLATE, ChildPipes, FirstTemplate, Spawner
from tamed.unix.spawn import CHANNEL, FAILED, RECORDS, become_child

if TYPE_CHECKING:
    from importlib.abc import InspectLoader

__all__ = ["with_template"]

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "GLIBC_")
_OURS = str(Path(__file__).parents[1]) + os.sep
_STANDARD = str(Path(os.__file__).parent) + os.sep


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
        return plan._replace(template=_made(plan, identity, environ, may_fork=may_fork)._asdict())
    except (OSError, InvalidMessage):
        return plan


def _made(
    plan: Plan, identity: Identity | None, environ: Mapping[str, str], *, may_fork: bool
) -> FirstTemplate:
    spawner = Spawner(plan, identity, environ, limits_files=True)
    is_fork = (
        may_fork
        and not spawner.is_privileged
        and _is_as_new(spawner.child_environ)
        and bool(_words(plan.name))
    )
    order = plan.template_order
    if is_fork:
        order["loaded"] = process_begin(plan.listen_pid)  # the command, which has forked this process
    with ExitStack() as held:
        ours, theirs = map(held.enter_context, socket.socketpair())
        _send_at_once(ours, encode_message(order))
        pipes = ChildPipes(plan.directory)
        held.callback(pipes.close)
        if is_fork:
            pid = _forked(plan, spawner.child_environ, theirs.fileno(), pipes.theirs)
        else:
            interpreter = plan.worker_interpreter
            pid = spawner.spawn(theirs.fileno(), pipes.theirs, *TEMPLATE, interpreter=interpreter)
        first = FirstTemplate(pid, ours.detach(), *pipes.take_ours())
    for descriptor in first.descriptors:
        os.set_inheritable(descriptor, True)
    return first


def _send_at_once(sock: socket.socket, line: bytes) -> None:
    """Send a line to a process that does not read yet. Raises OSError if the socket's buffer is full."""
    sock.setblocking(False)
    if sock.send(line) < len(line):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


# A template that is forked.


def _is_as_new(environ: Mapping[str, str]) -> bool:
    """Return whether a fork of this process has loaded only what a new interpreter would load, too.

    It must not have imported any module that is neither ours nor of the standard library, for example a
    plugin; it must have been started without options; and the variables that an interpreter reads at its
    start must be the same.
    """
    return (
        not any(option.startswith("-") for option in sys.orig_argv[1:2])
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
    """Return what process listings show of a template; empty if the command is too short for that."""
    for program in (sys.executable, Path(sys.executable).name):
        words = [program, "-m", TEMPLATE[0], name, *TEMPLATE[1:]]
        if len(" ".join(words)) <= len(" ".join(sys.orig_argv)):
            return words
    return []


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
            channel, records, output, directory = map(os.dup, (channel, *pipes))
        except OSError:
            os._exit(FAILED)  # two processes would go on as the supervisor
        placed = {1: output, 2: output, CHANNEL: channel, RECORDS: records}
        raise Unwind(partial(_begin, plan, environ, placed, directory))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _begin(plan: Plan, environ: Mapping[str, str], placed: Mapping[int, int], directory: int) -> NoReturn:
    """Give up what a new process of Tamed would not have, and run the program of a template."""
    try:
        for name in [name for name in sys.modules if name.startswith(("tamed.cli", "tamed.control"))]:
            del sys.modules[name]
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
        script = os.path.dirname(os.path.realpath(sys.argv[0]))  # noqa: PTH120 - as the interpreter does it
        sys.path[:] = PATH[1:] if PATH[:1] == (script,) else PATH
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
