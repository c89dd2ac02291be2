"""What the tests of descriptors do in processes of their own."""

import fcntl
import os
import socket
from pathlib import Path

from tamed._os.descriptors import (
    close_all,
    close_inherited,
    fill_standard_descriptors,
    has_lost_terminal,
    read_nothing,
)
from tamed._os.fork import require_single_thread, threads
from tamed.errors import TamedError
from tamed.unix.privileges import change_root


def is_open(number: int) -> bool:
    """Tell whether a descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def opened(path: str, count: int) -> list[int]:
    """Open a file so often."""
    return [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(count)]


def close_some(path: str) -> list[bool]:
    """Close what was inherited, of two descriptors that look so, and see what became of them and another."""
    inherited, kept, own = opened(path, 3)
    os.set_inheritable(inherited, True)
    os.set_inheritable(kept, True)
    close_inherited({kept})
    return [is_open(inherited), is_open(kept), is_open(own)]


def close_but_sockets(path: str) -> list[bool]:
    """Close what was inherited but sockets that may listen, and see what became of a file and two sockets."""
    (file,) = opened(path, 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = socket.create_connection(server.getsockname()).detach()
        inherited = (file, server.fileno(), connected)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        close_inherited((), but_sockets=True)
        return [is_open(descriptor) for descriptor in inherited]


def on_a_terminal() -> list[object]:
    """Read nothing any more of a terminal, then lose it; return what can be done with it."""
    kept = [os.dup(number) for number in range(3)]
    ours, terminal = os.openpty()
    for number in range(3):
        os.dup2(terminal, number)
    os.close(terminal)
    read_nothing()
    is_null = os.path.samestat(os.fstat(0), Path(os.devnull).stat())
    readable = [can_read(number) for number in (1, 2)]
    os.write(1, b"a poem")
    written = os.read(ours, 99).decode()
    was_lost = has_lost_terminal()
    os.close(ours)
    is_lost = has_lost_terminal()
    for number, copy in enumerate(kept):
        os.dup2(copy, number)
    return [is_null, readable, written, was_lost, is_lost]


def can_read(descriptor: int) -> bool:
    """Return whether a descriptor is open for reading."""
    return (
        os.get_blocking(descriptor) and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
    )


def close_the_rest(path: str) -> list[bool]:
    """Close all but two descriptors in a child, and return what is open in it."""
    first, second, third, last = opened(path, 4)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        close_all({2, second, third, writing})
        seen = [is_open(number) for number in (first, second, third, last, 1)]
        os.write(writing, bytes(seen))
        os._exit(0)
    os.waitpid(child, 0)
    return [bool(one) for one in os.read(reading, 99)]


def fill(closed: list[int], path: str) -> None:
    """Close some of the standard descriptors, fill them, and write down what they are then."""
    kept = [os.dup(number) for number in range(3)]
    null = Path(os.devnull).stat()
    for number in closed:
        os.close(number)
    fill_standard_descriptors()
    is_null = [os.fstat(number).st_rdev == null.st_rdev for number in range(3)]
    inheritable = [os.get_inheritable(number) for number in range(3)]
    is_left = is_open(max(kept) + 1)
    for number in range(3):
        os.dup2(kept[number], number)
    was_null = [os.fstat(number).st_rdev == null.st_rdev for number in kept]
    is_filled = [now and not before for now, before in zip(is_null, was_null, strict=True)]
    Path(path).write_text(f"{is_filled} {inheritable} {is_left}")


def close_without_proc(root: str) -> str:
    """Try to close what was inherited where nobody tells what that is."""
    change_root(Path(root))
    try:
        close_inherited(())
    except TamedError as error:
        return str(error)
    return ""


def count_threads() -> list[int]:
    """Count the threads of this process, as the kernel and as Python does."""
    require_single_thread("cannot")
    return [threads(), threads(Path("/none"))]
