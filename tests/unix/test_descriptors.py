"""Descriptors that were inherited, and threads."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tamed._os.descriptors import place_descriptors, replace_with_null
from tamed._os.fork import require_single_thread, threads
from tamed.errors import SystemRefused
from tests.unix import descriptors_child
from tests.unix.process import call, needs_root


def test_inherited_descriptors_are_closed(tmp_path: Path) -> None:
    """Those that are open across exec are closed, except those to keep; those that Python opened are not."""
    inherited, kept, own = call(descriptors_child.close_some, tmp_path / "file")
    assert (inherited, kept, own) == (False, True, True)


def test_sockets_that_may_listen_are_kept(tmp_path: Path) -> None:
    """If that is asked, for endpoints ``fd://``; a file and a connection are closed."""
    assert call(descriptors_child.close_but_sockets, tmp_path / "file") == [False, True, False]


def test_a_terminal_is_not_read_any_more() -> None:
    """It is written to as before, and it is noticed when it is gone."""
    assert call(descriptors_child.on_a_terminal) == [True, [False, False], "a poem", False, True]


def test_all_descriptors_are_closed(tmp_path: Path) -> None:
    """A child that keeps nothing of its parent has what it asked for, and 0 to 2."""
    assert call(descriptors_child.close_the_rest, tmp_path / "file") == [False, True, True, False, True]


@pytest.mark.parametrize("closed", [[], [0], [1], [0, 2], [0, 1, 2]], ids=str)
def test_standard_descriptors_are_filled(closed: list[int], tmp_path: Path) -> None:
    """Each of 0 to 2 that is closed becomes the null device, which programs that are executed get too."""
    path = tmp_path / "result"
    call(descriptors_child.fill, closed, path, stdin=subprocess.PIPE)
    filled = [number in closed for number in range(3)]
    assert path.read_text() == f"{filled} [True, True, True] False"


@needs_root
def test_descriptors_that_nobody_lists(tmp_path: Path) -> None:
    """Without /proc, the open descriptors are unknown, and an error says so."""
    assert call(descriptors_child.close_without_proc, tmp_path) == (
        "cannot list the open descriptors: there is neither /proc nor /dev/fd; mount /proc"
    )


def test_threads_are_counted(tmp_path: Path) -> None:
    """Threads are counted by the kernel, or else by Python, and more than one is refused."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert threads() >= threading.active_count() >= 2
        assert threads(tmp_path / "none") == threading.active_count()
        with pytest.raises(SystemRefused, match=r"^cannot fork: this process has \d+ threads; do it before"):
            require_single_thread("cannot fork")
    finally:
        over.set()
        thread.join()


def test_one_thread_is_right() -> None:
    """With one thread nothing is refused."""
    assert call(descriptors_child.count_threads) == [1, 1]


@pytest.mark.parametrize("inheritable", [False, True])
def test_a_hollow_descriptor_is_open_and_as_inheritable_as_it_was(inheritable: bool) -> None:
    """The number stays taken, and a program that is executed gets it, or not, as before."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(ours.fileno(), inheritable)
        replace_with_null([ours.fileno(), -1])
        assert os.path.samestat(os.fstat(ours.fileno()), Path(os.devnull).stat())
        assert os.get_inheritable(ours.fileno()) is inheritable
        assert theirs.recv(1) == b""


def test_descriptors_are_placed_although_the_numbers_overlap() -> None:
    """Two that exchange their numbers are what the other was, and exec leaves them open."""
    reading, writing = os.pipe()
    try:
        place_descriptors({reading: writing, writing: reading})
        os.write(reading, b"verse")
        assert os.read(writing, 9) == b"verse"
        assert os.get_inheritable(reading)
    finally:
        os.close(reading)
        os.close(writing)
