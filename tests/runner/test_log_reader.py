"""Reading a log that is rotated between any two reads."""

import gzip
import itertools
import os
import time
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path

import pytest

from tamed.log import reader as _log_reader
from tamed.log.reader import LogReader

PACKED = gzip.compress(b"".join(b"line %d\n" % number for number in range(1000)), mtime=0)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Create a log with one line, and two old files."""
    for name, line in [("app.log", "third"), ("app.log.1", "second"), ("app.log.2", "first")]:
        (tmp_path / name).write_text(f"{line}\n")
    return tmp_path / "app.log"


def move(log: Path, number: int) -> None:
    """Execute one of the renames of a rotation."""
    name = log.with_name(f"{log.name}.{number}") if number else log
    name.rename(log.with_name(f"{log.name}.{number + 1}"))


def rotate(log: Path, line: str) -> None:
    """Rotate the log, and create a new one."""
    numbers = [int(path.suffix[1:]) for path in log.parent.glob("app.log.*")]
    for number in sorted([0, *numbers], reverse=True):
        move(log, number)
    log.write_text(f"{line}\n")


def test_the_last_lines_come_from_old_files_too(log: Path) -> None:
    """The requested number of lines is read."""
    with closing(LogReader(log)) as reader:
        assert reader.last(2) == [b"second\n", b"third\n"]
        assert list(reader.more()) == []


def test_files_follow_one_another(log: Path) -> None:
    """No line is skipped after any number of rotations."""
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"third\n"]
        rotate(log, "fourth")
        rotate(log, "fifth")
        assert list(reader.more()) == [b"fourth\n", b"fifth\n"]


def test_no_file_is_skipped_by_a_look_in_the_middle_of_a_rotation(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the one that is read has moved and the one behind it has not, nothing has its old number."""
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"third\n"]
        rotate(log, "fourth")
        for number in (3, 2, 1):
            move(log, number)

        def open_late(path: Path, owner: int | None) -> BufferedIOBase:
            monkeypatch.undo()
            move(log, 0)
            log.write_text("fifth\n")
            return path.open("rb")

        monkeypatch.setattr(_log_reader, "_open", open_late)
        assert list(reader.more()) == [b"fourth\n", b"fifth\n"]


def test_a_log_that_is_about_to_be_made_anew_is_waited_for(log: Path) -> None:
    """Between the last rename and the new file, there is no next file."""
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"third\n"]
        for number in (2, 1, 0):
            move(log, number)
        assert list(reader.more()) == []
        log.write_text("fourth\n")
        assert list(reader.more()) == [b"fourth\n"]


def test_behind_a_file_that_was_removed_the_oldest_follows(log: Path) -> None:
    """Only the removed lines are lost."""
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"third\n"]
        for line in ("fourth", "fifth", "sixth"):
            rotate(log, line)
        for number in (5, 4, 3):
            log.with_name(f"app.log.{number}").unlink()
        assert list(reader.more()) == [b"fourth\n", b"fifth\n", b"sixth\n"]


def test_behind_a_file_that_was_moved_no_older_one_follows(log: Path) -> None:
    """For example logrotate moves it to a name with the date: no line is read twice."""
    for number, age in ((2, 20), (1, 10)):
        os.utime(log.with_name(f"app.log.{number}"), (time.time() - age,) * 2)
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"third\n"]
        log.rename(log.with_name("app.log-20261129"))
        assert list(reader.more()) == []
        log.write_text("fourth\n")
        assert list(reader.more()) == [b"fourth\n"]


def test_a_file_that_was_truncated_is_read_from_its_beginning(log: Path) -> None:
    """As logrotate does with copytruncate."""
    log.write_text("a long line\n")
    with closing(LogReader(log)) as reader:
        assert reader.last(1) == [b"a long line\n"]
        os.truncate(log, 0)
        assert list(reader.more()) == []
        with log.open("a") as opened:
            opened.write("short\n")
        assert list(reader.more()) == [b"short\n"]


@pytest.mark.parametrize(
    "content",
    [b"no gzip", PACKED[:20], PACKED[:30] + b"\0\1" + PACKED[32:]],
    ids=["not compressed", "cut", "changed"],
)
def test_a_compressed_file_that_is_damaged_is_an_error_of_the_system(log: Path, content: bytes) -> None:
    """Any damage is reported as one kind of error."""
    log.with_name("app.log.3.gz").write_bytes(content)
    with (
        closing(LogReader(log)) as reader,
        pytest.raises(OSError, match="a compressed old file is damaged: "),
    ):
        reader.last(20)


def test_files_that_are_renamed_for_ever_are_an_error(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless renames do not block the reader: a real rotation ends."""
    numbers = itertools.count(3)
    opened = _log_reader._open

    def open_and_rename(path: Path, owner: int | None) -> BufferedIOBase:
        stream = opened(path, owner)
        last = next(numbers)
        log.with_name(f"app.log.{last - 1}").rename(log.with_name(f"app.log.{last}"))
        return stream

    with closing(LogReader(log)) as reader:
        monkeypatch.setattr(_log_reader, "_open", open_and_rename)
        with pytest.raises(OSError, match="its old files are being renamed continuously"):
            reader.last(20)
