"""Daemons for the tests of detaching, and those who start them."""

import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tamed.errors import TamedError
from tamed.unix.detach import detach
from tamed.unix.report import Launch, Reporter
from tests.unix.child import say


def start(what: str, options: dict[str, Any]) -> list[object]:
    """Detach; the daemon does what it is told to do, and this process returns the report."""
    timeout, grace, noted = options.pop("timeout", 30.0), options.pop("grace", 10.0), options.pop("noted", "")
    if "directory" in options:
        options["directory"] = Path(options["directory"])
    try:
        side = detach(**options)
    except TamedError as error:
        return [type(error).__name__, str(error)]
    if isinstance(side, Reporter):
        globals()[what](side)
        os._exit(0)
    assert isinstance(side, Launch)
    while noted and not Path(noted).exists():  # the time runs from where the test wants it
        time.sleep(0.01)
    return list(side.wait(timeout, grace=grace))


def serve(reporter: Reporter) -> None:
    """Be ready, tell the world about oneself, and stay until SIGTERM."""
    reporter.ready(json.dumps(facts()))
    signal.pause()


def facts() -> dict[str, object]:
    """Describe this process."""
    null = Path(os.devnull).stat().st_rdev
    mask = os.umask(0)
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "null": [os.fstat(number).st_rdev == null for number in range(3)],
        "open": [number for number in range(3, 100) if is_inheritable(number)],
        "terminal": has_terminal(),
        "directory": str(Path.cwd()),
        "umask": mask,
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def is_inheritable(number: int) -> bool:
    """Tell whether a descriptor is open for programs that are executed."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def has_terminal() -> bool:
    """Tell whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def refuse(reporter: Reporter) -> None:
    """Fail with several lines, and take some time for clearing up."""
    reporter.failed("the poem is missing\n  at line 1: ä", 66)
    Path(f"clearing-{os.getpid()}").touch()
    time.sleep(0.2)
    Path(f"clearing-{os.getpid()}").unlink()


def give_up(reporter: Reporter) -> None:
    """End without a word, with a status."""
    os._exit(3)


def vanish(reporter: Reporter) -> None:
    """End without a word, with status 0."""


def die(reporter: Reporter) -> None:
    """End without a word, by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_unheard(reporter: Reporter) -> None:
    """End by a signal that has no name."""
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


def close(reporter: Reporter) -> None:
    """Let the pipe go without a word, and go on."""
    note("pid", str(os.getpid()))
    reporter.close()
    signal.pause()


def hang(reporter: Reporter) -> None:
    """Never be ready; clear up at SIGTERM."""
    Path("made").touch()
    signal.signal(signal.SIGTERM, clear_up)
    note("pid", str(os.getpid()))
    while True:
        time.sleep(0.05)  # a pause would not see a signal that came just before it


def clear_up(*ignored: object) -> None:
    """Undo what was done, and end."""
    Path("made").unlink()
    os._exit(0)


def hang_hard(reporter: Reporter) -> None:
    """Never be ready, with a child; neither ends at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: note("asked", "to end"))
    child = os.fork()
    if child:
        note("pid", f"{os.getpid()}\n{child}")
    while True:
        time.sleep(0.05)  # a pause would not see a signal that came just before it


def note(name: str, text: str) -> None:
    """Write a file that is whole when it is there."""
    Path(f".{name}").write_text(text)
    Path(f".{name}").rename(name)


def with_threads() -> list[object]:
    """Try to detach beside a thread."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        return start("serve", {})
    finally:
        over.set()
        thread.join()


def from_closed(closed: list[int], path: str) -> None:
    """Start a daemon without some of the standard descriptors; write the report into a file."""
    for number in closed:
        os.close(number)
    Path(path).write_text(json.dumps(start("serve", {})))
    os._exit(0)


def buffered() -> list[object]:
    """Start a daemon with unwritten output, which must be written once."""
    sys.stdout.write(" ")
    report = start("serve", {})
    sys.stdout.flush()
    return report


def from_terminal(path: str) -> None:
    """Be the leader of a session with a terminal; start a daemon; end."""
    assert has_terminal()
    Path(path).write_text(json.dumps(start("serve", {})))


def interrupted(what: str, grace: float) -> None:
    """Start a daemon, and tell what ends the waiting."""
    try:
        start(what, {"directory": str(Path.cwd()), "grace": grace})
    except KeyboardInterrupt:
        say("interrupted")


def between_fork_and_wait(directory: str) -> list[object]:
    """Be interrupted after the fork and before the waiting begins."""
    side = detach(directory=Path(directory))
    if isinstance(side, Reporter):
        hang(side)
    assert isinstance(side, Launch)
    os.kill(os.getpid(), signal.SIGINT)
    while not Path(directory, "pid").exists():
        time.sleep(0.001)
    try:
        return list(side.wait())
    except KeyboardInterrupt:
        return ["interrupted", Path(directory, "made").exists()]


def keep_socket(path: str) -> list[object]:
    """Start a daemon that keeps one of two inherited descriptors."""
    kept, other = (os.open(path, os.O_RDONLY) for _ in range(2))
    os.set_inheritable(kept, True)
    os.set_inheritable(other, True)
    with socket.socket() as ours:  # opened by Python, so it ends at the exec, and its object may close it
        report = start("serve", {"keep": [kept], "directory": str(Path(path).parent), "umask": 0o77})
        assert stat.S_ISSOCK(os.fstat(ours.fileno()).st_mode)
    return [kept, *report]
