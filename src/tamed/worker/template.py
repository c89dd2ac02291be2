"""A template: a process that has loaded the code that every worker needs, and forks the workers.

It is the only way to make a worker. A template has loaded the framework and nothing of the application, so a
worker loads the current code; with ``--preload`` it has loaded the application too. The common part of the
workers is then in memory once, and a worker costs a fork and not the start of an interpreter.

A forked process has only the thread that forked, and inherits all locks in their current state. So a template
has no other thread and no event loop. An application that starts threads while it is loaded is refused.

An intermediate process forks all requested workers, and ends at once. The supervisor, a subreaper (prctl(2)),
becomes their parent. A forked process waits for its first message, which the supervisor sends when it knows
the pid. If it closes the channel instead, the process ends.
"""

import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple, NoReturn

from tamed._os.fork import fork_own, threads
from tamed._os.proc import process_begin, show_words
from tamed.errors import ConfigurationError
from tamed.ipc.channel import CHANNEL, RECORDS, Channel, first_order
from tamed.ipc.message import Message, read_number, read_seconds, read_text, read_truth
from tamed.log.logger import flush_log
from tamed.net.endpoint import Endpoint
from tamed.net.listen import Gate, Listener
from tamed.unix.privileges import forbid_tracing
from tamed.worker.life import STOP_SIGNALS
from tamed.worker.runtime import WorkerRuntime, exit_after, set_up_process

__all__ = ["Origin", "main"]

_LAG = 0.02  # seconds by which a file's time may lag behind the clock
_NEEDED = ("tamed", "tamed.net.reply", "tamed.net.server", "tamed.net.stream", "tamed.net.tls")
"""Modules that almost every application loads, besides those that this module loads."""


class Origin:
    """The files that this process was loaded from, and whether a new interpreter would load others.

    They are not compared with a recorded state: recording some hundred files would slow down each start. The
    time of the last change of an inode (``st_ctime``, inode(7)) serves as well: no program can set it back,
    and installing a file from an archive, which may keep an old ``st_mtime``, updates it. Create this early:
    a link that changes before is not noticed.
    """

    def __init__(self) -> None:
        self._began = process_begin(os.getpid()) - _LAG
        self._places = _places()

    def loaded_since(self, moment: float) -> None:
        """Take into account that modules were loaded before this process was forked, since this moment."""
        self._began = min(self._began, moment - _LAG)

    @property
    def has_changed(self) -> bool:
        """Whether a file that was loaded has changed, a package was installed, or a path leads elsewhere."""
        return self._places != _places() or any(map(self._is_newer, _files()))

    def _is_newer(self, file: Path) -> bool:
        status = _status(file)
        return status is None or status.st_ctime >= self._began


def _places() -> list[tuple[int, int]]:
    """Return the device and inode numbers of the folders of the interpreter and the modules."""
    folders = (Path(sys.executable).parent, *map(Path, sys.path))
    return [(status.st_dev, status.st_ino) for each in folders if (status := _status(each)) is not None]


def _files() -> Iterator[Path]:
    yield Path(sys.executable)
    for module in list(sys.modules.values()):
        if isinstance(file := getattr(module, "__file__", None), str):
            yield Path(file)
    for name in sys.path:
        if name.endswith("-packages") and (folder := Path(name)).is_dir():
            yield folder  # installing a package changes it
            yield from folder.glob("*.pth")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


class _NoSource:
    """The source of sockets in a template, in which no server may listen."""

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        return self.listen_now(endpoint, kind)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        why = "the application listens while it is being loaded, before any worker exists"
        raise ConfigurationError(f"cannot listen on {endpoint}", why, "run it without --preload")


class _Request(NamedTuple):
    """A request for a process: its number, and the descriptors of the process.

    ``worker`` is the number of a worker. ``module`` is the module of a helper process, empty for a worker.
    """

    number: int
    descriptors: Sequence[int]
    worker: int = 0
    module: str = ""


def main() -> NoReturn:
    """Fork workers as the supervisor orders, until it closes the channel."""
    origin = Origin()
    set_up_process()
    channel = Channel(socket.socket(fileno=CHANNEL), takes_descriptors=True)
    exit_after(channel, lambda: _work(channel, origin))


def _work(channel: Channel, origin: Origin) -> int:
    order = first_order(channel)
    if order.get("answers"):  # a core dump would contain them; forked processes inherit this
        forbid_tracing()
    if "loaded" in order:
        origin.loaded_since(read_seconds(order, "loaded"))
    _load_framework(order)
    preloaded = _preload(order) if read_truth(order, "preload") else None
    importlib.invalidate_caches()  # as each worker does: in Python 3.13 this imports 4 MB of modules
    gc.collect()
    gc.freeze()  # so that a collection in a worker does not write to, and so copy, shared memory
    channel.send({"loaded": True})
    request = _serve(channel, origin, preloaded)
    if request is None:
        return 0
    _begin(request, channel)
    if request.module:
        importlib.import_module(request.module).main(channel)
        return 0
    order = first_order(channel)
    if preloaded is not None:
        preloaded.identify(order)
        return preloaded.live(preloaded.link(channel))
    runtime = WorkerRuntime(order)
    link = runtime.link(channel)  # first: an application may listen while it is loaded
    runtime.load()
    return runtime.live(link)


# Loading.


def _load_framework(order: Message) -> None:
    for name in _NEEDED:
        importlib.import_module(name)
    WorkerRuntime.rehearse(order)


def _preload(order: Message) -> WorkerRuntime:
    """Load the application. Raises ConfigurationError if it has started threads."""
    runtime = WorkerRuntime(order)
    runtime.serve_from(_NoSource(), Gate())
    runtime.load()
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    count = threads() - 1
    if names or count:
        why = f"the application has started threads while it was loaded ({', '.join(names) or count})"
        remedy = "start them in a service's start hook, or run it without --preload"
        raise ConfigurationError("--preload", why, remedy)
    return runtime


# Forking.


def _serve(channel: Channel, origin: Origin, preloaded: WorkerRuntime | None) -> _Request | None:
    """Fork until the channel is closed, and return None; in a forked process, return its request."""
    for stop in STOP_SIGNALS:
        # A service manager may send these to all processes; this one must end with the supervisor.
        signal.signal(stop, lambda *_: None)
    while not channel.closed:
        requests: list[_Request] = []
        for message, descriptors in channel.receive():
            match message:
                case {"fork": _, "module": _} if origin.has_changed:
                    _close(descriptors)
                    channel.send({"changed": read_number(message, "fork")})
                case {"fork": _, "module": _}:
                    number, module = read_number(message, "fork"), read_text(message, "module")
                    requests.append(_Request(number, descriptors, module=module))
                case {"fork": _}:
                    number, worker = read_number(message, "fork"), read_number(message, "worker")
                    requests.append(_Request(number, descriptors, worker))
                case {"drop": True} if preloaded is not None:
                    preloaded.drop_privileges()
        if requests and (mine := _fork(requests, channel)) is not None:
            return mine
        select.select([channel], [], [])  # last: the first request may have come with the order
    return None


def _fork(requests: Sequence[_Request], channel: Channel) -> _Request | None:
    """Fork a worker for each request, and answer; in a worker, return its request."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    flush_log()
    mine: _Request | None = None
    answers: dict[int, int]
    try:
        mine, answers = _fork_by_another(requests)
    except OSError as error:
        answers = dict.fromkeys((each.number for each in requests), -(error.errno or errno.EAGAIN))
    for request in requests:
        if request is mine:
            continue
        _close(request.descriptors)
        if mine is None:
            channel.send(_answer(request.number, answers.get(request.number, -errno.EAGAIN)))
    return mine


def _answer(number: int, pid: int) -> Message:
    """Return the answer to a request: a pid, or a negative errno."""
    return {"forked": number, "pid": pid} if pid > 0 else {"refused": number, "errno": -pid}


def _fork_by_another(requests: Sequence[_Request]) -> tuple[_Request | None, dict[int, int]]:
    """Return the pids, or negative errnos, by the requests' numbers; in a worker, its request."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as report, os.fdopen(writing, "wb", buffering=0) as answers:
        between = fork_own()
        if between == 0:
            return _fork_each(requests, answers), {}
        answers.close()
        found = {int(number): int(pid) for number, pid in map(bytes.split, report)}
    with suppress(ChildProcessError):  # the application may have ignored SIGCHLD, so that the kernel reaps
        os.waitpid(between, 0)
    return None, found


def _fork_each(requests: Sequence[_Request], answers: FileIO) -> _Request:
    """Fork the workers from the intermediate process, which ends here; return in a worker."""
    try:
        for request in requests:
            try:
                pid = fork_own()
            except OSError as error:
                pid = -(error.errno or errno.EAGAIN)
            if pid == 0:
                return request
            answers.write(b"%d %d\n" % (request.number, pid))
    except OSError:  # the template has ended
        os._exit(1)
    os._exit(0)


def _begin(request: _Request, channel: Channel) -> None:
    """Detach this process from its template; exit if the request was cancelled."""
    theirs, records, output, directory = request.descriptors
    for descriptor, number in ((theirs, CHANNEL), (records, RECORDS), (output, 1), (output, 2)):
        os.dup2(descriptor, number, inheritable=number in (1, 2))
    os.set_blocking(CHANNEL, False)
    os.set_blocking(RECORDS, False)
    channel.forget()
    select.select([CHANNEL], [], [])
    if channel.is_cut_off():
        os._exit(0)
    os.setsid()  # only now: until here, the process had to end with its template
    _enter(directory)
    _close(request.descriptors)
    name = sys.orig_argv[-2]
    if request.module:
        sys.argv[1:] = [name]
        show_words([request.module, name], 3)
    else:
        words = [name, str(request.worker)]
        if sys.argv[1:] == sys.orig_argv[-2:]:  # a preloaded application has its own arguments
            sys.argv[1:] = words
        show_words(words, 2)
    # CPython leaves the number of the parent's thread in the object of the main thread.
    getattr(threading.main_thread(), "_set_native_id", lambda: None)()
    importlib.invalidate_caches()


def _enter(directory: int) -> None:
    """Change to the current directory of the path that the template was started in."""
    try:
        os.fchdir(directory)
    except PermissionError:
        # Root started the daemon in a folder that its user cannot enter; the template is still in it.
        return


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
