"""The pid file and who holds it."""

import contextlib
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.errors import (
    AlreadyRunning,
    CannotCreate,
    ExitStatus,
    PermissionRefused,
    SystemRefused,
)
from tamed.unix.lock import holder, take_claim, take_life
from tamed.unix.pidfile import PidFile, check_replaceable
from tests.patience import ROUNDS
from tests.unix import pidfile_child
from tests.unix.process import Child, call, needs_root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the pid file is to be."""
    return tmp_path / "verse.pid"


@contextlib.contextmanager
def stranger() -> Iterator[int]:
    """Run a process that has nothing to do with us, and is ours to look at."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """Have a child that has ended and was not reaped."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def test_file_says_who_holds_it(path: Path) -> None:
    """The file has the pid and a newline, is readable by all whatever the umask, and shows its holder."""
    mask = os.umask(0o077)
    try:
        with PidFile.acquire(path) as held:
            assert path.read_bytes() == b"%d\n" % os.getpid()
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            assert path.stat().st_nlink == 1
            assert holder(path) == os.getpid() == held.pid
            assert held.intact
            assert not os.get_inheritable(held.fileno())
    finally:
        os.umask(mask)
    assert list(path.parent.iterdir()) == []
    assert holder(path) is None


def test_held_file_refuses_others(path: Path) -> None:
    """A second start is told who runs, with the status for that, and leaves nothing behind."""
    with PidFile.acquire(path):
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} runs and holds it") as caught:
            PidFile.acquire(path)
        assert list(path.parent.iterdir()) == [path]
    assert caught.value.status == ExitStatus.ALREADY_RUNNING


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"no number\n", b"0\n", b"1\n", b"99999999999999999999\n", b"-1\n"]
)
def test_stale_file_blocks_nobody(path: Path, content: bytes) -> None:
    """A file that no process holds is replaced, whatever its content."""
    path.write_bytes(content)
    assert holder(path) is None
    with PidFile.acquire(path):
        assert holder(path) == os.getpid()


def test_live_stranger_blocks_nobody(path: Path) -> None:
    """A file with the pid of a process that runs but does not hold it is stale."""
    with stranger() as pid:
        path.write_text(f"{pid}\n")
        assert holder(path) is None
        PidFile.acquire(path).remove()


def test_zombie_blocks_nobody(path: Path) -> None:
    """A file with the pid of a process that was not yet reaped is stale."""
    with zombie() as pid:
        path.write_text(f"{pid}\n")
        assert holder(path) is None
        PidFile.acquire(path).remove()


def test_the_number_must_be_of_who_holds_it(path: Path) -> None:
    """A held file that names a process which does not have it open names nobody, and lets none start."""
    with stranger() as pid, path.open("w+") as file:
        assert take_life(file.fileno())
        path.write_text(f"{pid}\n")
        with pytest.raises(SystemRefused, match=f"held, but not by process {pid}"):
            holder(path)
        with pytest.raises(AlreadyRunning, match=f"held, but not by process {pid}"):
            PidFile.acquire(path)


def test_held_file_without_number(path: Path) -> None:
    """A file that is held and names nobody, or nobody alive, is told as such."""
    with path.open("w+") as file:
        assert take_life(file.fileno())
        with pytest.raises(SystemRefused, match="it contains no pid"):
            holder(path)
        path.write_text("99999999999999999999\n")
        with pytest.raises(SystemRefused, match="not by process 9999"):
            holder(path)


def test_missing_directory(tmp_path: Path) -> None:
    """A missing directory is named, with the status for what cannot be created."""
    path = tmp_path / "none" / "verse.pid"
    with pytest.raises(CannotCreate, match=f"there is no directory {path.parent}"):
        PidFile.acquire(path)
    assert holder(path) is None


def test_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A link is refused, and what it points to is neither made nor changed."""
    target = tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(CannotCreate, match="symbolic link"):
        PidFile.acquire(path)
    assert not target.exists()
    target.write_text("precious")
    with pytest.raises(CannotCreate, match="symbolic link"):
        PidFile.acquire(path)
    with pytest.raises(CannotCreate, match="symbolic link"):
        holder(path)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(path: Path, make: object) -> None:
    """A directory or a named pipe in the place of the file is refused at once."""
    assert callable(make)
    make(path)
    for attempt in (PidFile.acquire, holder):
        with pytest.raises(CannotCreate, match="not a regular file"):
            attempt(path)
    assert list(path.parent.iterdir()) == [path]


def test_remove_is_final_and_may_be_repeated(path: Path) -> None:
    """The file goes once; after that there is nothing to remove, and another can take the name."""
    held = PidFile.acquire(path)
    assert held.remove()
    assert not path.exists()
    with PidFile.acquire(path):
        assert not held.remove()
        assert path.exists()
    held.close()


def test_only_our_own_file_is_removed(path: Path) -> None:
    """A file that somebody put in the place of ours stays."""
    held = PidFile.acquire(path)
    path.unlink()
    assert not held.intact
    path.write_text("somebody else's\n")
    assert not held.intact
    assert not held.remove()
    assert path.read_text() == "somebody else's\n"


def test_deleted_file_is_no_error(path: Path) -> None:
    """When the file was deleted by hand there is nothing to remove."""
    held = PidFile.acquire(path)
    path.unlink()
    assert not held.remove()


def test_closing_leaves_a_stale_file(path: Path) -> None:
    """Who only closes gives up the lock and leaves the file, which then blocks nobody."""
    held = PidFile.acquire(path)
    held.close()
    held.close()
    assert path.exists()
    assert holder(path) is None
    PidFile.acquire(path).remove()


def test_forked_child_does_not_remove(path: Path) -> None:
    """In a forked child removing only closes; the parent still holds its file."""
    assert call(pidfile_child.remove_in_child, path) == [False, True, True]


def test_child_that_kept_it_is_not_taken_for_the_holder(path: Path) -> None:
    """When a child of the one that is named has the lock, nobody is named, and none may start."""
    with Child(pidfile_child.leave_it_to_a_child, path) as child:
        assert child.result() == "held"
        child.process.wait()
        with pytest.raises(SystemRefused, match=f"held, but not by process {child.pid}"):
            holder(path)
        with pytest.raises(AlreadyRunning):
            PidFile.acquire(path)
        child.tell()
        assert child.hear() == ""  # the end of its output: it has ended
        PidFile.acquire(path).remove()


def test_killed_holder_blocks_nobody(path: Path) -> None:
    """After ``kill -9`` the next start works at once, whether the dead one was reaped or not."""
    with Child(pidfile_child.take, path) as child:
        child.hear()
        child.tell()
        assert child.result() == "holds"
        assert holder(path) == child.pid
        child.signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert holder(path) is None
        PidFile.acquire(path).remove()


@pytest.mark.parametrize("before", [None, "1\n"], ids=["no file", "stale file"])
def test_one_of_many_starts_wins(path: Path, before: str | None) -> None:
    """Of ten starts at the same time one wins; the others name it, with the status for that."""
    if before:
        path.write_text(before)
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(Child(pidfile_child.take, path)) for _ in range(10)]
        for child in children:
            child.hear()
        for child in children:
            child.tell()
        results = [child.result() for child in children]
        winners = [child for child, result in zip(children, results, strict=True) if result == "holds"]
        assert len(winners) == 1
        assert holder(path) == winners[0].pid
        refusals = [result for result in results if result != "holds"]
        assert {status for _, status, _ in refusals} == {ExitStatus.ALREADY_RUNNING}
        assert all(f"process {winners[0].pid} runs" in message for _, _, message in refusals)
        winners[0].tell()
        assert winners[0].result() is None
    assert list(path.parent.iterdir()) == []


def test_two_never_hold_it(path: Path) -> None:
    """Whatever starts, ends and dies at the same time, one holds it at most, and no one reads half of it."""
    race = Race(path)
    workers = [threading.Thread(target=race.work, args=[50 * ROUNDS]) for _ in range(6)]
    reader = threading.Thread(target=race.read)
    for thread in (*workers, reader):
        thread.start()
    for thread in workers:
        thread.join()
    race.is_over.set()
    reader.join()
    assert race.faults == []
    assert [entry for entry in path.parent.iterdir() if entry != path] == []


class Race:
    """Many who take the same pid file, and one who reads it. Each acquisition has an open file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holders = 0
        self.faults: list[str] = []
        self.is_over = threading.Event()

    def work(self, turns: int) -> None:
        for turn in range(turns):
            with contextlib.suppress(AlreadyRunning):
                self.hold(PidFile.acquire(self.path), remove=bool(turn % 2))

    def hold(self, held: PidFile, *, remove: bool) -> None:
        self.holders += 1
        if self.holders != 1 or not held.intact:
            self.faults.append(f"{self.holders} hold it")
        self.holders -= 1
        if remove:
            held.remove()
        else:
            held.close()  # as if it were killed

    def read(self) -> None:
        content = b"%d\n" % os.getpid()
        while not self.is_over.is_set():
            with contextlib.suppress(FileNotFoundError):
                if (found := self.path.read_bytes()) != content:
                    self.faults.append(repr(found))


def test_pid_file_goes_through_an_exec(path: Path) -> None:
    """After an upgrade by exec the same process holds the file, by the same lock, and can remove it."""
    with Child(pidfile_child.upgrade, path, True) as child:
        assert child.result() == [True, True, False, True]
    assert not path.exists()


def test_pid_file_is_not_inherited_unasked(path: Path) -> None:
    """A program that is executed does not get the lock unless that was meant."""
    with Child(pidfile_child.upgrade, path, False) as child:
        assert child.result() == "SystemRefused"
        assert holder(path) is None


def test_adopting_what_is_not_ours(path: Path, tmp_path: Path) -> None:
    """A descriptor that is no pid file of this process, or none at all, is refused."""
    other = tmp_path / "other"
    other.write_text("1\n")
    with other.open("r+") as file, pytest.raises(SystemRefused, match="not that of this process"):
        PidFile.adopt(path, file.fileno())
    with pytest.raises(SystemRefused, match="Bad file descriptor"):
        PidFile.adopt(path, 987654)


def test_clearing_waits_for_another_who_clears(path: Path) -> None:
    """While another start clears a stale file, a start waits for it, and takes the file when it is done."""
    path.write_text("1\n")
    claim = path.with_name(f".{path.name}.claim")
    with claim.open("w") as file:
        assert take_claim(file.fileno())
        naps = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                claim.unlink()
                path.unlink()

        PidFile.acquire(path, sleep=nap).remove()
    assert len(naps) == 3
    assert list(path.parent.iterdir()) == []


def test_readers_of_a_stale_file_keep_nobody_waiting(path: Path) -> None:
    """Whoever may read it may lock it, and so may a stranger."""
    path.write_text("1\n")
    with path.open() as file:
        for byte in (0, 1):
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_RDLCK, 0, byte, 1, 0))
        PidFile.acquire(path, sleep=lambda _: pytest.fail("it waits")).remove()


@needs_root
def test_full_disk(tmp_path: Path) -> None:
    """Without room for the pid the start is refused, and nothing is left."""
    kind, message, left = call(pidfile_child.take_on_full_disk, tmp_path)
    assert kind == "CannotCreate"
    assert "No space left on device" in message
    assert left == ["filler"]


@needs_root
def test_who_may_not_write_there_learns_who_runs(public_path: Path) -> None:
    """A user who may not make the file is told so, but if it is held he is told by whom."""
    path = public_path / "verse.pid"
    kind, message, seen = call(pidfile_child.take_as, path, "nobody")
    assert kind == PermissionRefused.__name__
    assert "Permission denied" in message
    assert seen == "None"
    with PidFile.acquire(path):
        kind, message, seen = call(pidfile_child.take_as, path, "nobody")
        assert kind == AlreadyRunning.__name__
        assert f"process {os.getpid()} runs" in message
        assert seen == str(os.getpid())


@needs_root
def test_dropped_user_removes_it_from_its_own_directory(public_path: Path) -> None:
    """Who gave up root can remove the file from a directory of his own; elsewhere it is left, stale."""
    own = public_path / "own"
    own.mkdir()
    os.chown(own, 65534, 65534)
    assert call(pidfile_child.remove_as, own / "verse.pid", "nobody") == "True"
    assert list(own.iterdir()) == []
    path = public_path / "verse.pid"
    assert call(pidfile_child.remove_as, path, "nobody") == "PermissionRefused"
    assert path.exists()
    assert holder(path) is None


@needs_root
def test_removing_works_from_a_chroot(path: Path, tmp_path: Path) -> None:
    """The file can be removed although its path leads elsewhere since the root directory was changed."""
    root = tmp_path / "root"
    root.mkdir()
    assert call(pidfile_child.remove_after_chroot, path, root) == [True, True]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"123\n", b"-1", b"\0\0\0\0"])
def test_a_stale_file_may_be_replaced(path: Path, content: bytes) -> None:
    """With a pid in it, without one, and as a crash of the machine can leave it."""
    check_replaceable(path)
    path.write_bytes(content)
    check_replaceable(path)


def test_a_file_of_another_kind_is_not_replaced(path: Path) -> None:
    """An operator who has named the wrong file would lose it."""
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(CannotCreate, match="it contains something other than a pid, which would be lost"):
        check_replaceable(path)


def test_a_named_pipe_is_left_to_who_takes_the_file(tmp_path: Path) -> None:
    """It is not opened, which would wait for a writer; the pid file itself refuses it."""
    path = tmp_path / "x.pid"
    os.mkfifo(path)
    check_replaceable(path)
    with pytest.raises(CannotCreate, match="it is not a regular file"):
        PidFile.acquire(path)
