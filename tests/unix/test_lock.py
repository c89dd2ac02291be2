"""Locks on open files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.unix.lock import is_alive, take_claim, take_life
from tests.unix.pidfile_child import end_with_a_child_that_has_it
from tests.unix.process import Child


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Return two descriptors of the same file, opened each on its own."""
    path = tmp_path / "file"
    path.touch()
    descriptors = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_life_is_taken_once(two: tuple[int, int]) -> None:
    """The holder of the life lock excludes others from it and from the claim, and may take it again."""
    first, second = two
    assert take_life(first)
    assert not take_life(second)
    assert not take_claim(second)
    assert take_life(first)


def test_life_is_seen_by_others(two: tuple[int, int]) -> None:
    """Life is seen by who opened the file otherwise, and not once it was given up."""
    first, second = two
    assert not is_alive(second)
    assert take_life(first)
    assert is_alive(second)


def test_looking_takes_nothing(two: tuple[int, int]) -> None:
    """A look at the lock does not block others from taking it, and does not release it."""
    first, second = two
    assert not is_alive(second)
    assert take_life(first)
    assert not is_alive(first)  # by somebody else
    assert is_alive(second)


def test_the_claim_is_not_life(two: tuple[int, int]) -> None:
    """The claim alone excludes other claims, and does not count as life."""
    first, second = two
    assert take_claim(first)
    assert not take_claim(second)
    assert not take_life(second)
    assert not is_alive(second)


def test_reading_is_enough_to_look(tmp_path: Path) -> None:
    """A read-only descriptor suffices to see whether the lock is held."""
    path = tmp_path / "file"
    path.touch()
    writable, readable = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    assert take_life(writable)
    assert is_alive(readable)
    os.close(writable)
    assert not is_alive(readable)
    os.close(readable)


def test_closing_another_descriptor_keeps_the_lock(two: tuple[int, int], tmp_path: Path) -> None:
    """Opening and closing the file elsewhere in the process does not lose the lock, as POSIX locks would."""
    first, second = two
    assert take_life(first)
    os.close(os.open(tmp_path / "file", os.O_RDWR))
    assert is_alive(second)


def test_the_lock_lives_as_long_as_the_last_process_that_has_it(tmp_path: Path) -> None:
    """A lock outlives the process that took it in a child that inherited it, and ends with that."""
    path = tmp_path / "file"
    path.touch()
    reader = os.open(path, os.O_RDONLY)
    with Child(end_with_a_child_that_has_it, path) as parent:
        assert parent.result() == "locked"
        parent.process.wait()
        assert is_alive(reader)
        parent.tell()
        assert parent.result() == "ended"
        while is_alive(reader):
            pass
    os.close(reader)


def test_other_errors_come_through() -> None:
    """Other errors of a descriptor are raised."""
    for ask in (take_life, take_claim, is_alive):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ask(987654)
