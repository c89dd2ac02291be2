"""The log file."""

import gzip
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from tamed._os.identity import Identity
from tamed.errors import CannotCreate, ConfigurationError, PermissionRefused
from tamed.log.file import LogFile
from tamed.log.plan import Rotation
from tests.log import logfile_child
from tests.log.logfile_child import Clock, numbered
from tests.unix.process import NOBODY, call, needs_root

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the log is to be, alone in its directory."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "verse.log"


def names(path: Path) -> list[str]:
    """Return all names in the log's directory."""
    return sorted(entry.name for entry in path.parent.iterdir())


def content(path: Path, numbers: Iterable[int]) -> bytes:
    """Return what is in the old files with these numbers, and then in the file itself."""
    parts = []
    for number in numbers:
        old = path.with_name(f"{path.name}.{number}")
        packed = path.with_name(f"{path.name}.{number}.gz")
        parts.append(gzip.decompress(packed.read_bytes()) if packed.exists() else old.read_bytes())
    return b"".join([*parts, path.read_bytes()])


def test_lines_are_appended(path: Path) -> None:
    """What is written is in the file at once, behind what was there; its owner and group can read it."""
    mask = os.umask(0o077)
    try:
        log = LogFile(path)
        log.append([b"one\n", b"two\nthree\n"])
        assert path.read_bytes() == b"one\ntwo\nthree\n"
        log.close()
        log = LogFile(path)
        log.append([b"four\n"])
        log.close()
        log.close()
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path) == ["verse.log"]


def test_every_line_is_there_once_through_many_rotations(path: Path) -> None:
    """Through a hundred rotations no line is lost, torn or twice, and no file is longer than asked for."""
    log = LogFile(path, Rotation(size=2600, keep=None))
    for first in range(0, 10_000, 37):
        log.append(numbered(first, min(first + 37, 10_000)))
    log.close()
    count = len(names(path)) - 1
    assert count == 99
    assert content(path, range(count, 0, -1)) == b"".join(numbered(0, 10_000))
    assert max(entry.stat().st_size for entry in path.parent.iterdir()) == 2600


def test_record_stays_in_one_file(path: Path) -> None:
    """A record of many lines is not divided, even when it is longer than a file should be."""
    log = LogFile(path, Rotation(size=50))
    traceback = b"Traceback\n" + b"  line\n" * 20
    log.append([b"before\n", traceback, b"after\n"])
    log.close()
    assert path.read_bytes() == b"after\n"
    assert path.with_name("verse.log.1").read_bytes() == traceback
    assert path.with_name("verse.log.2").read_bytes() == b"before\n"


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, [1]), (3, [1, 2, 3])])
def test_old_files_are_removed(path: Path, keep: int, left: list[int]) -> None:
    """As many old files stay as were asked for: the youngest."""
    log = LogFile(path, Rotation(size=10, keep=keep))
    for number in range(8):
        log.append([b"line %d is here\n" % number])
    log.close()
    assert names(path) == ["verse.log", *(f"verse.log.{number}" for number in left)]
    assert content(path, reversed(left)) == b"".join(
        b"line %d is here\n" % number for number in range(7 - len(left), 8)
    )


def test_young_files_stay_beyond_the_number(path: Path) -> None:
    """Those whose last line is younger than asked for; older ones go, and nothing is said of them."""
    clock = Clock(1_000_000_000)
    log = LogFile(path, Rotation(size=10, keep=2, keep_for=DAY, max_use=1000), clock=clock)
    for number in range(8):
        log.append([b"line %d is here\n" % number])
        os.utime(path, (clock.now, clock.now))
    assert content(path, range(7, 0, -1)) == b"".join(b"line %d is here\n" % number for number in range(8))
    clock.now += DAY
    log.append([b"the last line\n"])
    log.close()
    assert names(path) == ["verse.log", "verse.log.1", "verse.log.2"]
    assert path.read_bytes() == b"the last line\n"


def test_young_files_are_removed_beyond_a_size(path: Path) -> None:
    """The oldest first, as many as it takes; the log says what went, and the number of files stays always."""
    clock = Clock(1_000_000_000)
    log = LogFile(path, Rotation(size=10, keep=2, keep_for=DAY, max_use=60), clock=clock)
    for number in range(6):
        log.append([b"line %d is here\n" % number])
        os.utime(path, (clock.now + number, clock.now + number))
    log.close()
    assert names(path) == ["verse.log", *(f"verse.log.{number}" for number in (1, 2, 3, 4))]
    text = path.read_text()
    assert f"removed an old file of the log {path}, 15 bytes, the oldest written until 2001-09-09 " in text
    assert text.endswith(": old files may take 60 bytes; allow more with --log-max-use\nline 5 is here\n")
    log = LogFile(path, Rotation(size=10, keep=2, keep_for=DAY, max_use=1), clock=clock)
    log.append([b"line 6 is here\n"])
    log.close()
    assert names(path) == ["verse.log", "verse.log.1", "verse.log.2"]
    assert re.search(r"removed 3 old files of the log \S+, 45 bytes, the oldest", path.read_text())


def test_what_is_not_ours_stays(path: Path) -> None:
    """Files that only look a little like old logs are neither counted nor removed."""
    others = ["verse.log.0", "verse.log.01", "verse.log.1.bak", "verse.log.x", "verse.logs.1", "other.log.1"]
    for other in others:
        path.with_name(other).touch()
    log = LogFile(path, Rotation(size=5, keep=1))
    for _ in range(4):
        log.append([b"a line\n"])
    log.close()
    assert names(path) == sorted([*others, "verse.log", "verse.log.1"])


def test_fewer_old_files_than_before(path: Path) -> None:
    """When fewer are to be kept than there are, those beyond are removed at the next rotation."""
    for number in (1, 2, 3, 7, 9):
        path.with_name(f"verse.log.{number}").write_text(f"{number}")
    path.with_name("verse.log.8.gz").touch()
    log = LogFile(path, Rotation(size=5, keep=7))
    log.append([b"old line\n", b"new line\n"])
    log.close()
    assert names(path) == ["verse.log", *(f"verse.log.{number}" for number in (1, 2, 3, 4, 7))]
    assert path.with_name("verse.log.4").read_text() == "3"


def test_rotation_by_time(path: Path) -> None:
    """A new day begins a new file, with the first line written in it; an empty file is not rotated."""
    clock = Clock(1_000_000_000)
    log = LogFile(path, Rotation(size=None, every=DAY), clock=clock)
    log.housekeep()
    log.append([b"monday\n"])
    clock.now += DAY
    log.housekeep()
    assert names(path) == ["verse.log"]
    log.append([b"tuesday\n", b"tuesday\n"])
    clock.now += 3 * DAY
    log.append([b"friday\n"])
    clock.now -= 2 * DAY  # set back
    log.append([b"wednesday\n"])
    log.close()
    assert path.with_name("verse.log.2").read_bytes() == b"monday\n"
    assert path.with_name("verse.log.1").read_bytes() == b"tuesday\ntuesday\n"
    assert path.read_bytes() == b"friday\nwednesday\n"


def test_a_clock_that_was_ahead_does_not_end_rotation_by_time(path: Path) -> None:
    """It is set right; the next day begins a new file, as before."""
    clock = Clock(1_000_000_000)
    log = LogFile(path, Rotation(size=None, every=DAY), clock=clock)
    log.append([b"monday\n"])
    clock.now += 1000 * DAY
    log.append([b"monday, years later\n"])
    clock.now -= 1000 * DAY
    log.housekeep()
    log.append([b"monday\n"])
    assert names(path) == ["verse.log", "verse.log.1"]
    clock.now += DAY
    log.append([b"tuesday\n"])
    log.close()
    assert path.read_bytes() == b"tuesday\n"


def test_rotation_by_time_after_a_pause(path: Path) -> None:
    """A daemon that was not running at midnight rotates with its first line, by the time of the file."""
    path.write_bytes(b"monday\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    log = LogFile(path, Rotation(size=None, every=DAY), clock=Clock(1_000_000_000 + DAY))
    log.append([b"tuesday\n"])
    log.close()
    assert content(path, [1]) == b"monday\ntuesday\n"


def test_reopening_after_a_rename(path: Path) -> None:
    """A renamed file is written on until the log is reopened; then a new one is made. No line is lost."""
    log = LogFile(path)
    log.append([b"one\n"])
    moved = path.rename(path.with_name("moved"))
    log.housekeep()
    log.append([b"two\n"])
    assert names(path) == ["moved"]
    log.reopen()
    log.append([b"three\n"])
    log.close()
    assert moved.read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"


def test_replaced_file_is_followed(path: Path) -> None:
    """When another file has been given the name, lines go to that one without being asked."""
    log = LogFile(path)
    log.append([b"one\n"])
    path.rename(path.with_name("moved"))
    path.touch()
    log.housekeep()
    log.append([b"two\n"])
    log.close()
    assert path.read_bytes() == b"two\n"


def test_deleted_file_is_replaced(path: Path) -> None:
    """A new file replaces the deleted one; lines written to that meanwhile are not lost."""
    log = LogFile(path)
    log.append([b"one\n"])
    log.housekeep()
    path.unlink()
    log.append([b"two\n"])
    log.housekeep()
    log.append([b"three\n"])
    log.close()
    assert path.read_bytes() == b"two\nthree\n"


@pytest.mark.parametrize("sweep", ["removed", "renamed", "another in its place"])
def test_a_directory_that_is_gone_is_made_anew(path: Path, sweep: str) -> None:
    """With the mode that it had; no line is lost, and the new log tells."""
    folder, elsewhere = path.parent, path.parent.with_name("elsewhere")
    folder.chmod(0o751)
    log = LogFile(path)
    log.housekeep()
    log.append([b"one\n"])
    if sweep == "removed":
        path.unlink()
        folder.rmdir()
    else:
        folder.rename(elsewhere)
    if sweep == "another in its place":
        folder.mkdir(0o751)
    log.append([b"two\n"])
    log.housekeep()
    log.append([b"three\n"])
    assert log.trouble == ""
    log.close()
    moved = elsewhere / path.name
    lines = [*(moved.read_text().splitlines() if moved.exists() else []), *path.read_text().splitlines()]
    assert [line for line in lines if " tamed: " not in line] == ["one", "two", "three"]
    assert any("missing and was created again" in line for line in lines) == (sweep != "another in its place")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o751
    assert log.lost == 0


def test_what_cannot_be_made_anew_is_a_trouble_and_its_lines_are_counted(path: Path) -> None:
    """As soon as it can be, the log goes on by itself and tells how many lines were lost."""
    log = LogFile(path)
    log.housekeep()
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")
    log.append([b"one\ntwo\n"])
    log.housekeep()
    assert "cannot reopen the log" in log.trouble
    log.append([b"three\n"])
    log.reopen()
    assert log.lost == 3
    assert "3 lines were lost" in log.trouble
    path.parent.unlink()
    log.housekeep()
    log.append([b"four\n"])
    assert log.trouble == ""
    log.close()
    assert re.fullmatch(r"(.* tamed: .*\n)+four\n", path.read_text())
    assert "3 lines were lost between" in path.read_text()


def test_truncated_file_is_written_from_its_beginning(path: Path) -> None:
    """A copy with truncation, as by logrotate, leaves no hole in the file."""
    log = LogFile(path, Rotation(size=30))
    log.append([b"a line of the poem\n"])
    os.truncate(path, 0)
    log.append([b"a line of the poem\n"])
    log.close()
    assert path.read_bytes() == b"a line of the poem\n"
    assert names(path) == ["verse.log"]


def test_name_of_another_file_is_not_rotated(path: Path) -> None:
    """If another file has the name when a rotation is due, it is opened and not renamed."""
    log = LogFile(path, Rotation(size=10))
    log.append([b"a long line\n"])
    path.rename(path.with_name("moved"))
    path.write_bytes(b"theirs\n")
    log.append([b"ours\n"])
    log.close()
    assert path.read_bytes() == b"theirs\nours\n"
    assert names(path) == ["moved", "verse.log"]


def test_torn_last_line_is_ended(path: Path) -> None:
    """A line that was cut off by a crash does not swallow the first new one."""
    path.write_bytes(b"whole\nto")
    log = LogFile(path)
    log.append([b"new\n"])
    log.close()
    assert path.read_bytes() == b"whole\nto\nnew\n"


def test_leftovers_of_a_crash(path: Path) -> None:
    """A rotation that was interrupted leaves nothing in the way of the next one."""
    path.with_name(".verse.log.new").write_bytes(b"half")
    path.with_name("verse.log.2").write_bytes(b"two\n")  # 1 had just been moved
    log = LogFile(path, Rotation(size=5))
    log.append([b"a line\n", b"a line\n"])
    log.close()
    assert names(path) == ["verse.log", "verse.log.1", "verse.log.2"]
    assert path.with_name("verse.log.2").read_bytes() == b"two\n"


@pytest.mark.parametrize(
    ("rotation", "told"),
    [
        (Rotation(size=0), "rotate a log at 0 bytes"),
        (Rotation(every=0.5), "rotate a log every 0.5 seconds"),
        (Rotation(keep=-1), "keep -1 old logs"),
        (Rotation(keep_for=-1), "keep old logs for -1 s"),
    ],
)
def test_senseless_rotation(path: Path, rotation: Rotation, told: str) -> None:
    """Numbers that make no sense are refused before anything is opened."""
    with pytest.raises(ConfigurationError, match=told):
        LogFile(path, rotation)
    assert names(path) == []


def test_links_are_refused(path: Path, tmp_path: Path) -> None:
    """Neither a symbolic nor a hard link leads the log into another file."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    path.symlink_to(precious)
    with pytest.raises(CannotCreate, match="symbolic link"):
        LogFile(path)
    path.unlink()
    path.hardlink_to(precious)
    with pytest.raises(CannotCreate, match="hard link"):
        LogFile(path)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(path: Path, make: object) -> None:
    """A directory or a named pipe is no log, and is refused at once."""
    assert callable(make)
    make(path)
    with pytest.raises(CannotCreate, match=r"Is a directory|not a regular file"):
        LogFile(path)


def test_missing_directory(path: Path) -> None:
    """A missing directory is named."""
    with pytest.raises(CannotCreate, match=f"there is no directory {path.parent / 'none'}"):
        LogFile(path.parent / "none" / "verse.log")


def test_nothing_is_written_once_closed(path: Path) -> None:
    """Lines written to a closed log are counted as lost, and go into no other file."""
    log = LogFile(path)
    log.close()
    with path.with_name("other").open("w") as other:
        log.append([b"one\ntwo\n"])
        log.housekeep()
        log.reopen()
        other.flush()
    assert log.lost == 2
    assert path.read_bytes() == b""
    assert path.with_name("other").read_bytes() == b""


def test_full_file_is_cut_to_whole_records(path: Path) -> None:
    """A part of a record is cut off and counted; the loss is logged when there is space again."""
    stopped, is_same, lost, text = call(logfile_child.fill_limited, path)
    assert stopped.encode() == b"".join(numbered(0, 38))
    assert is_same
    assert lost == 62 + 2
    first, second = (rf"\d{{4}}-\d\d-\d\d \d\d:{minute}:40[+-]\d{{4}}" for minute in (46, 47))
    told = re.search(rf"tamed: 64 lines were lost between {first} and {second}: File too large\n", text)
    assert told
    assert text.encode().endswith(b"".join(numbered(100, 110)))
    assert len(text.splitlines()) == 38 + 1 + 10


@needs_root
def test_full_disk(tmp_path: Path) -> None:
    """On a full disk, each line is in the file, whole and in order, or counted; the loss is logged later."""
    lost, lost_at_last, said, lines = call(logfile_child.fill_disk, tmp_path, False)
    assert 0 < lost == lost_at_last
    assert len(said) == 1
    assert f" {lost} lines were lost between " in said[0]
    assert said[0].endswith(": No space left on device\n")
    written = 10_000 - lost
    assert lines == [*range(written), *range(10_000, 10_100)]


@needs_root
def test_rotation_makes_room(tmp_path: Path) -> None:
    """A disk that holds two files and not three never fills up, since the oldest goes first."""
    lost, last, left = call(logfile_child.rotate_on_full_disk, tmp_path)
    assert lost == 0
    assert last == 19_999
    assert left == ["verse.log", "verse.log.1"]


@needs_root
@pytest.mark.parametrize("root", ["", "root"])
def test_rotation_as_the_dropped_user(public_path: Path, root: str) -> None:
    """A log that root opened is rotated by the user it is for, in a chroot too, and all files are theirs."""
    own = public_path / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    (public_path / "root").mkdir()
    path = own / "verse.log"
    assert call(logfile_child.rotate_as, path, "nobody", root and public_path / root) == [0]
    assert names(path) == ["verse.log", "verse.log.1", "verse.log.2"]
    assert content(path, [2, 1]) == b"".join(numbered(21, 30)) + b"end\n"
    for entry in own.iterdir():
        assert (entry.stat().st_uid, stat.S_IMODE(entry.stat().st_mode)) == (NOBODY, 0o640)


@needs_root
def test_a_clock_that_is_set_back_does_not_keep_it_from_another_attempt(public_path: Path) -> None:
    """The wait after a failed rotation is a minute, whatever the time of day."""
    path = public_path / "verse.log"
    os.chown(public_path, NOBODY, NOBODY)
    trouble = call(logfile_child.rotate_after_the_clock_is_set_back, path, "nobody")
    assert "cannot rotate the log" in trouble
    assert path.read_bytes() == b"".join(numbered(30, 33))


@needs_root
def test_rotation_that_is_not_allowed(public_path: Path) -> None:
    """Where the user may not rotate, lines go on into the same file, and it is said once."""
    path = public_path / "verse.log"
    os.chown(public_path, NOBODY, NOBODY)
    assert call(logfile_child.fail_to_rotate, path, "nobody") == [0]
    lines = path.read_bytes().splitlines(keepends=True)
    said = [line for line in lines if b" tamed: " in line]
    assert len(said) == 1
    assert b"cannot rotate the log" in said[0]
    assert b"Permission denied" in said[0]
    assert [line for line in lines if line not in said] == numbered(0, 30)
    assert names(path) == ["verse.log"]


@needs_root
def test_file_of_a_stranger_is_not_given_away(public_path: Path) -> None:
    """What root has not just made it gives to nobody: neither a stranger's file nor one of its own."""
    path = public_path / "verse.log"
    os.chown(public_path, NOBODY, NOBODY)
    path.touch(0o600)
    for uid in (12345, 0):
        os.chown(path, uid, uid)
        with pytest.raises(PermissionRefused, match=f"it belongs to user {uid}, and user {NOBODY} may not"):
            LogFile(path, owner=Identity.resolve("nobody"))
        assert (path.stat().st_uid, os.geteuid()) == (uid, 0)
    path.unlink()
    LogFile(path, owner=Identity.resolve("nobody")).close()
    assert path.stat().st_uid == NOBODY


@needs_root
def test_directory_that_is_not_for_us(public_path: Path) -> None:
    """A directory without write permission is reported when the log is opened."""
    said = call(logfile_child.open_as, public_path / "verse.log", "nobody")
    assert said.startswith(
        f"{PermissionRefused.__name__}: log file {public_path / 'verse.log'}: Permission denied"
    )


def test_old_files_are_compressed(path: Path) -> None:
    """Old files are compressed by children, and every line can be read from them."""
    lost, ours, stranger = call(logfile_child.compress, path.parent)
    assert (lost, stranger) == (0, False)
    assert ours == [True] * 9
    assert names(path) == ["verse.log", *(f"verse.log.{number}.gz" for number in (1, 2, 3))]
    lines = b"".join(numbered(0, 1000))
    assert lines.endswith(content(path, [3, 2, 1]))
    assert len(content(path, [3, 2, 1])) == 4 * 2600
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o640}


def test_compressor_that_fails(path: Path) -> None:
    """A compressor that is killed, late, or at work at the end harms no file, and passes on no signal."""
    after_kill, is_idle, moved, at_end = call(logfile_child.compress_with_trouble, path.parent)
    assert after_kill == ["verse.log", "verse.log.1"]
    assert is_idle
    assert moved == ["verse.log", "verse.log.1", "verse.log.2.gz"]
    assert at_end == moved
    assert content(path, [2, 1]).count(b"cannot compress the log") == 1


def test_compressor_inherits_nothing(path: Path) -> None:
    """While a compressor works it has nothing open of what its parent had: no pipe, no lock."""
    assert call(logfile_child.compressor_keeps_nothing, path.parent) is True


def test_what_was_lost_is_said_by_the_program_that_goes_on(path: Path) -> None:
    """One that takes the place of another by exec says what that one could not say in time."""
    log = LogFile(path, Rotation(None, None, None))
    log.resume([2, 0.0, 0.0, "No space left on device"])
    left = log.export()
    path.unlink()
    log = LogFile(path, Rotation(None, None, None))
    log.resume(left)
    log.resume([])
    log.append([b"next\n"])
    log.close()
    assert "2 lines were lost between " in path.read_text()
    assert path.read_text().endswith("No space left on device\nnext\n")
