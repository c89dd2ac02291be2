"""What the tests of the log file do in processes of their own."""

import os
import resource
import signal
from pathlib import Path

from tamed._os.identity import Identity
from tamed.errors import TamedError
from tamed.log.file import LogFile
from tamed.log.plan import Rotation
from tamed.unix.privileges import change_root, drop_privileges
from tests.unix.child import mount_small

NO_ROTATION = Rotation(size=None)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def numbered(first: int, last: int) -> list[bytes]:
    """Return lines that can be told apart."""
    return [b"line %08d of the poem\n" % number for number in range(first, last)]


def fill_limited(path: str) -> list[object]:
    """Write to a file that may not grow beyond a limit, and on when the limit has gone."""
    clock = Clock()
    log = LogFile(Path(path), NO_ROTATION, clock=clock)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    log.append(numbered(0, 100))  # 26 bytes each: 38 of them fit
    stopped = Path(path).read_bytes()
    clock.now += 60
    log.append([b"two lines\nof one record\n"])
    log.housekeep()
    still = Path(path).read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.housekeep()
    log.append(numbered(100, 110))
    log.close()
    return [stopped.decode(), still == stopped, log.lost, Path(path).read_text()]


def fill_disk(directory: str, in_threads: bool) -> list[object]:
    """Write to a full disk, make room, and write on; every line is in the file or counted."""
    mount_small(directory, "128k")
    path = Path(directory, "verse.log")
    log = LogFile(path, NO_ROTATION)
    filler = Path(directory, "filler")
    filler.write_bytes(bytes(64 * 1024))
    for first in range(0, 10_000, 100):
        log.append(numbered(first, first + 100))
    lost = log.lost
    filler.unlink()
    log.append(numbered(10_000, 10_100))
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    return [lost, log.lost, [line.decode() for line in lines if b" lost " in line], whole(lines)]


def whole(lines: list[bytes]) -> list[int]:
    """Return the numbers of the lines that are whole; there must be no others, but for what the log says."""
    numbers = []
    for line in lines:
        if b" tamed: " not in line:
            number = int(line[5:13])
            assert line == numbered(number, number + 1)[0]
            numbers.append(number)
    return numbers


def rotate_on_full_disk(directory: str) -> list[object]:
    """Fill a small disk with logs: rotation makes the room by removing the oldest."""
    mount_small(directory, "128k")
    log = LogFile(Path(directory, "verse.log"), Rotation(size=40_000, keep=1))
    for first in range(0, 20_000, 10):
        log.append(numbered(first, first + 10))
    log.close()
    lines = Path(directory, "verse.log").read_bytes().splitlines(keepends=True)
    return [log.lost, whole(lines)[-1], sorted(entry.name for entry in Path(directory).iterdir())]


def rotate_as(path: str, user: str, root: str) -> list[object]:
    """Open the log as root, give root up and perhaps the root directory, and rotate."""
    identity = Identity.resolve(user)
    log = LogFile(Path(path), Rotation(size=100, keep=2), owner=identity)
    if root:
        change_root(Path(root))
    drop_privileges(identity)
    for first in range(0, 30, 3):
        log.append(numbered(first, first + 3))
    log.reopen()
    log.append([b"end\n"])
    log.close()
    return [log.lost]


def fail_to_rotate(path: str, user: str) -> list[object]:
    """Rotate where the dropped user may not, for some time."""
    identity = Identity.resolve(user)
    clock = Clock()
    log = LogFile(Path(path), Rotation(size=100), owner=identity, clock=clock)
    os.chown(Path(path).parent, 0, 0)
    drop_privileges(identity)
    for first in range(0, 30, 3):
        log.append(numbered(first, first + 3))
        clock.now += 30
    log.close()
    return [log.lost]


def rotate_after_the_clock_is_set_back(path: str, user: str) -> str:
    """Rotate where the user may not, and again where it may; return the trouble in between."""
    identity, folder, clock = Identity.resolve(user), Path(path).parent, Clock()
    drop_privileges(identity)
    log = LogFile(Path(path), Rotation(size=100), clock=clock)
    folder.chmod(0o500)
    log.append(numbered(0, 30))
    trouble = log.trouble
    folder.chmod(0o700)
    clock.now -= 24 * 60 * 60
    log.append(numbered(30, 33))
    log.close()
    return trouble


def open_as(path: str, user: str) -> str:
    """Try to open a log as somebody."""
    drop_privileges(Identity.resolve(user))
    try:
        LogFile(Path(path)).close()
    except TamedError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def compress(directory: str) -> list[object]:
    """Rotate and compress, reaping as a supervisor does."""
    log = LogFile(Path(directory, "verse.log"), Rotation(size=2600, keep=3, compress=True))
    ours = []
    for first in range(0, 1000, 100):
        log.append(numbered(first, first + 100))
        log.housekeep()
        if first:
            ours.append(log.child_ended(*os.wait()))
    log.close()
    return [log.lost, ours, log.child_ended(1, 0)]


def compress_with_trouble(directory: str) -> list[object]:
    """Have a compressor killed, have one end after its file was moved on, and close while one works."""
    clock = Clock()
    log = LogFile(Path(directory, "verse.log"), Rotation(size=1000, keep=None, compress=True), clock=clock)
    heard = watch_signals()
    log.append([big(), big()])
    log.housekeep()
    os.kill(child_of(), signal.SIGTERM)
    log.child_ended(*os.wait())
    after_kill = names(directory)
    log.housekeep()  # not tried again at once
    is_idle = names(directory) == after_kill and not came(heard)
    clock.now += 61
    log.housekeep()
    child, status = os.wait()
    log.append([b"last\n"])  # moves the file that was being compressed
    log.child_ended(child, status)
    moved = names(directory)
    log.housekeep()
    os.kill(child_of(), 0)
    log.close()
    return [after_kill, is_idle, moved, names(directory)]


def big() -> bytes:
    """Return a line that takes a while to compress."""
    return os.urandom(1_000_000).hex().encode() + b"\n"


def came(pipe: int) -> bytes:
    """Return which signals came."""
    try:
        return os.read(pipe, 100)
    except BlockingIOError:
        return b""


def watch_signals() -> int:
    """Have SIGTERM handled, and return a pipe that says which signals came, as a supervisor has it."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    os.set_blocking(reading, False)
    return reading


def child_of() -> int:
    """Return the pid of the only child of this process."""
    pid = os.getpid()
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def names(directory: str) -> list[str]:
    """Return the names in a directory."""
    return sorted(entry.name for entry in Path(directory).iterdir())


def compressor_keeps_nothing(directory: str) -> bool:
    """Tell whether the end of a pipe is seen although the compressor is still there."""
    big = Path(directory, "verse.log")
    log = LogFile(big, Rotation(size=10, compress=True))
    log.append([b"x" * 30_000_000 + b"\n"])
    log.append([b"next\n"])
    reading, writing = os.pipe()
    log.housekeep()
    child = child_of()
    os.close(writing)
    ended = os.read(reading, 1) == b""
    still_there = os.waitpid(child, os.WNOHANG) == (0, 0)
    log.close()
    return ended and still_there
