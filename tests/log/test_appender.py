"""Appending whole records."""

import os
from pathlib import Path

import pytest

from tamed.log.file import Appender
from tests.log import appender_child
from tests.unix.process import call


def test_all_records_at_once(tmp_path: Path) -> None:
    """Records are written one after the other, and the file tells its length."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    appender = Appender(descriptor)
    assert appender.fileno() == descriptor
    assert appender.append([b"one\n", b"two\n"]) == (2, None)
    assert appender.append([]) == (0, None)
    assert appender.size() == 8
    appender.close()
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_closed_file() -> None:
    """A closed file accepts no data, and the reason is in the result."""
    appender = Appender(os.open(os.devnull, os.O_RDWR))
    appender.close()
    count, failure = appender.append([b"one\n"])
    assert count == 0
    assert failure is not None
    assert failure.strerror == "Bad file descriptor"


@pytest.mark.parametrize("limit", range(1, 17))
def test_whole_records_only(limit: int, tmp_path: Path) -> None:
    """Wherever the room ends, the records that fit stay, and nothing of the next one."""
    count, content = call(appender_child.append_up_to, tmp_path / "file", limit)
    assert count == limit // 4
    assert content == "one\ntwo\nsix\nten\n"[: count * 4]


def test_piece_that_cannot_be_cut_off_yet() -> None:
    """When even cutting off fails nothing more is written, and once it works, that comes first."""
    assert call(appender_child.append_where_nothing_can_be_cut) == [
        [1, "File too large", "one\ntw"],
        [0, "Operation not permitted", "one\ntw"],
        [1, "", "one\nsix\n"],
    ]
