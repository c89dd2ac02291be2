"""A process that has loaded the command, and forks itself for each that is asked for: see forked.py."""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tamed._os.beginning import words_of
from tamed._os.proc import show_words
from tamed.errors import exit_code

if not sys.flags.safe_path:
    del sys.path[0]  # as the command does, which imports nothing from where it is

# What most commands load, some of it late, and what a process on its own and the first template of a daemon
# load, which is a fork as well.
LOADED = (
    "ctypes",
    "importlib.metadata",
    "tamed.cli.commands",
    "tamed.cli.instances",
    "tamed.cli.status",
    "tamed.cli.targets",
    "tamed.config.kinds",
    "tamed.config.load",
    "tamed.control.launch",
    "tamed.net.reply",
    "tamed.net.stream",
    "tamed.net.tls",
    "tamed.twisted.kind",
    "tamed.worker.alone",
    "tamed.worker.template",
)

# What the services in the box are made of; each module is loaded with its libraries.
SERVICES = ("tamed.builtin", "tamed.web")

# What a Twisted program loads, whatever it is; its reactor it gets itself.
TWISTED = (
    "tamed.twisted._logging",
    "tamed.twisted._ports",
    "tamed.twisted.services",
    "twisted.application.app",
    "twisted.application.internet",
    "twisted.internet.asyncioreactor",
    "twisted.internet.ssl",
    "twisted.scripts.twistd",
)

execve = os.execve

PROGRAMS = ("tamed.control.planner", "tamed.ops", "tamed.supervisor.watcher", "tamed.worker")
"""The programs that a supervisor starts."""


def serve(channel: socket.socket) -> list[str]:
    """Fork for each request, and tell the status of each fork at its end. A fork returns its words."""
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is channel:
                message, descriptors, *_ = socket.recv_fds(channel, 100, 4, socket.MSG_CMSG_CLOEXEC)
                if not message:
                    sys.exit()
                request, told, *streams = descriptors
                if (pid := os.fork()) == 0:
                    # When they are collected, they would close their numbers, which are others' then.
                    selector.close()
                    channel.close()
                    with os.fdopen(request) as file:
                        asked = json.load(file)
                    return become(**asked, streams=streams)
                with contextlib.suppress(BrokenPipeError):  # who asked has given up
                    os.write(told, b"%7d\n" % pid)
                for descriptor in (request, *streams):
                    os.close(descriptor)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, told))
            else:
                pid, told = key.data
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(told, b"%7d\n" % status)
                selector.unregister(key.fd)
                os.close(key.fd)
                os.close(told)


def become(
    words: list[str], cwd: str, env: dict[str, str], limit: tuple[int, int], streams: list[int]
) -> list[str]:
    """Have all that a command has which was executed; return its words."""
    for number, descriptor in enumerate(streams, 1):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.chdir(cwd)
    if mark := env.get("TAMED_TEST"):  # else the command starts nothing that a test looks for
        show_mark(mark)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = words
    return words


def show_mark(mark: str) -> None:
    """Put the mark of a test where others see the environment with which a process was executed."""
    former, latter = (f"TAMED_TEST={each}\0".encode() for each in (os.environ["TAMED_TEST"], mark))
    place = Path("/proc/self/environ").read_bytes().index(former)
    begin = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[47])  # env_start, proc(5)
    assert len(former) == len(latter)
    with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
        memory.seek(begin + place)
        memory.write(latter)


def execute(program: str, command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Stand in for `os.execve`: run a program that a supervisor starts here, where most of it is loaded."""
    shown = words_of(*command[3:]) if may_run_here(command, environ) else []
    if not shown:  # or there is no room for these words in process listings
        execve(program, list(command), environ)
    status = 1
    try:
        begin_anew(environ)
        show_words(shown, len(sys.orig_argv))
        sys.argv[1:] = command[4:]
        runpy.run_module(command[3], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = exit_code(end)
    except BaseException:  # as an interpreter does
        sys.excepthook(*sys.exc_info())
    end_at_once(status)


def may_run_here(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether a program is one of ours, and a new interpreter would not be different."""
    is_ours = command[:3] == [sys.executable, "-P", "-m"] and command[3] in PROGRAMS
    # That file is root's in a process that has dropped root, which then cannot show other words (proc(5)).
    is_same_user = Path("/proc/self/mem").stat().st_uid == os.geteuid()
    return is_ours and is_same_user and of_interpreter(environ) == of_interpreter(os.environ)


def of_interpreter(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads when it starts."""
    read = ("LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ")
    return {name: value for name, value in environ.items() if name.startswith(read)}


def begin_anew(environ: Mapping[str, str]) -> None:
    """Have what a new interpreter has. The frames of the supervisor remain, and with them its objects."""
    atexit._clear()
    gc.collect()  # others close their descriptors now, before these are other files
    gc.freeze()
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environ)


def end_at_once(status: int) -> NoReturn:
    """End as an interpreter does, but for its last step: that would write to, and so copy, all modules."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def modules() -> Iterator[str]:
    """Yield the modules of the services in the box, but for programs of their own."""
    for name in SERVICES:
        package = importlib.import_module(name)
        found = pkgutil.walk_packages(package.__path__, f"{name}.")
        yield from (each.name for each in found if not each.name.endswith("__main__"))


def main() -> None:
    """Load the command, and serve the descriptor that was given."""
    with contextlib.suppress(ImportError):  # first: the command takes what is there for the interpreter's
        importlib.import_module("uvloop")
    command = importlib.import_module("tamed.cli.main")
    importlib.import_module("tamed.control.head_start").HEAVY.clear()  # so a daemon is a fork as well
    more = modules() if sys.argv[2] == "services" else TWISTED if sys.argv[2] == "twisted" else ()
    for name in (*LOADED, *more):
        importlib.import_module(name)
    os.execve = execute  # type: ignore[assignment]
    gc.freeze()  # or the first collection of each fork would copy all of it
    try:
        words = serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:  # the run of the tests is interrupted, which they say themselves
        return
    try:
        command.main(words)
    except SystemExit as end:
        end_at_once(exit_code(end))


main()
