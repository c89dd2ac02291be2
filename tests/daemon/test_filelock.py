"""Locks on open files."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.daemon._filelock import FileLock, OpenFileLock, WholeFileLock, lock_for
from tests.daemon.pidfile_child import end_with_a_child_that_has_it
from tests.daemon.process import Child, needs_linux

LOCKS = pytest.mark.parametrize(
    "lock",
    [
        pytest.param(OpenFileLock(), marks=needs_linux, id="open-file"),
        pytest.param(WholeFileLock(), id="whole-file"),
    ],
)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Return two descriptors of the same file, opened each on its own."""
    path = tmp_path / "file"
    path.touch()
    descriptors = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


@LOCKS
def test_life_is_taken_once(lock: FileLock, two: tuple[int, int]) -> None:
    """Who holds life keeps others from life and from the claim, and may take it again."""
    first, second = two
    assert lock.take_life(first)
    assert not lock.take_life(second)
    assert not lock.take_claim(second)
    assert lock.take_life(first)


@LOCKS
def test_life_is_seen_by_others(lock: FileLock, two: tuple[int, int]) -> None:
    """Life is seen by who opened the file otherwise, and not once it was given up."""
    first, second = two
    assert not lock.is_alive(second)
    assert lock.take_life(first)
    assert lock.is_alive(second)


@needs_linux
def test_looking_takes_nothing(two: tuple[int, int]) -> None:
    """While somebody looks, others can take the lock, and whoever holds it keeps it."""
    lock = OpenFileLock()
    first, second = two
    assert not lock.is_alive(second)
    assert lock.take_life(first)
    assert not lock.is_alive(first)  # by somebody else
    assert lock.is_alive(second)


@needs_linux
def test_the_claim_is_not_life(two: tuple[int, int]) -> None:
    """Who has the claim alone keeps others from it, and does not seem alive."""
    lock = OpenFileLock()
    first, second = two
    assert lock.take_claim(first)
    assert not lock.take_claim(second)
    assert not lock.take_life(second)
    assert not lock.is_alive(second)


@LOCKS
def test_reading_is_enough_to_look(lock: FileLock, tmp_path: Path) -> None:
    """A descriptor that can only be read tells whether life is held."""
    path = tmp_path / "file"
    path.touch()
    writable, readable = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    assert lock.take_life(writable)
    assert lock.is_alive(readable)
    os.close(writable)
    assert not lock.is_alive(readable)
    os.close(readable)


@LOCKS
def test_closing_another_descriptor_keeps_the_lock(
    lock: FileLock, two: tuple[int, int], tmp_path: Path
) -> None:
    """Opening and closing the file elsewhere in the process does not lose the lock, as POSIX locks would."""
    first, second = two
    assert lock.take_life(first)
    os.close(os.open(tmp_path / "file", os.O_RDWR))
    assert lock.is_alive(second)


@needs_linux
def test_the_lock_lives_as_long_as_the_last_process_that_has_it(tmp_path: Path) -> None:
    """A lock outlives the process that took it in a child that inherited it, and ends with that."""
    path = tmp_path / "file"
    path.touch()
    reader = os.open(path, os.O_RDONLY)
    with Child(end_with_a_child_that_has_it, path) as parent:
        assert parent.result() == "locked"
        parent.process.wait()
        assert OpenFileLock().is_alive(reader)
        parent.tell()
        assert parent.result() == "ended"
        while OpenFileLock().is_alive(reader):
            pass
    os.close(reader)


def test_the_best_lock_is_chosen(two: tuple[int, int]) -> None:
    """Linux has open file description locks; where the kernel does not know them the whole file is locked."""
    expected = OpenFileLock if sys.platform == "linux" else WholeFileLock
    assert type(lock_for(two[0])) is expected

    class Unknown(OpenFileLock):
        def is_alive(self, descriptor: int) -> bool:
            raise OSError(errno.EINVAL, "Invalid argument")

    assert type(lock_for(two[0], Unknown())) is WholeFileLock
    whole = WholeFileLock()
    assert lock_for(two[0], whole) is whole


@LOCKS
def test_other_errors_come_through(lock: FileLock) -> None:
    """What is wrong with a descriptor is no answer to whether it is locked."""
    for ask in (lock.take_life, lock.take_claim, lock.is_alive, lock_for):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ask(987654)
