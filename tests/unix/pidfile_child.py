"""What the tests of the pid file do in processes of their own."""

import os
import sys
from pathlib import Path
from typing import Any

from tamed._os.identity import Identity
from tamed.errors import TamedError, status_of
from tamed.unix.lock import holder, take_life
from tamed.unix.pidfile import PidFile
from tamed.unix.privileges import change_root, drop_privileges
from tests.unix.child import mount_small, say, wait


def end_with_a_child_that_has_it(path: str) -> None:
    """Lock a file and end, but leave a child that has it open until it hears something."""
    descriptor = os.open(path, os.O_RDWR)
    take_life(descriptor)
    if os.fork() == 0:
        say("locked")
        wait()
        say("ended")
    os._exit(0)


def take(path: str) -> Any:
    """Wait to be told, take the pid file, tell what came of it, and hold it until told otherwise."""
    say("here")
    wait()
    try:
        held = PidFile.acquire(Path(path))
    except TamedError as error:
        return ["refused", status_of(error), str(error)]
    say("holds")
    wait()
    held.remove()
    return None


def leave_it_to_a_child(path: str) -> None:
    """Take the pid file and end, but leave a child that has it open until it hears something."""
    PidFile.acquire(Path(path))
    if os.fork() == 0:
        say("held")
        wait()
    os._exit(0)


def remove_in_child(path: str) -> list[bool]:
    """Take the pid file and let a forked child remove it."""
    held = PidFile.acquire(Path(path))
    child = os.fork()
    if child == 0:
        os._exit(held.remove())
    removed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [bool(removed), held.intact, holder(Path(path)) == os.getpid()]


def upgrade(path: str, keep: bool) -> None:
    """Take the pid file and become another program, which adopts it."""
    held = PidFile.acquire(Path(path))
    os.set_inheritable(held.fileno(), keep)
    code = (
        "import sys; from tests.unix.pidfile_child import adopt; "
        f"adopt({path!r}, {held.fileno()}, {os.getpid()})"
    )
    os.execv(sys.executable, [sys.executable, "-W", "error", "-c", code])


def adopt(path: str, descriptor: int, pid: int) -> None:
    """Go on with the pid file after the exec, and print what came of it."""
    assert os.getpid() == pid
    try:
        held = PidFile.adopt(Path(path), descriptor)
    except TamedError as error:
        say(type(error).__name__)
        return
    inheritable = os.get_inheritable(held.fileno())
    say([holder(Path(path)) == pid, held.intact, inheritable, held.remove()])


def take_on_full_disk(directory: str) -> list[object]:
    """Try to take a pid file where there is no room."""
    mount_small(directory, "16k")
    with Path(directory, "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    try:
        PidFile.acquire(Path(directory, "x.pid"))
    except TamedError as error:
        return [type(error).__name__, str(error), sorted(entry.name for entry in Path(directory).iterdir())]
    return []


def remove_as(path: str, user: str) -> str:
    """Take the pid file as root, become somebody else and remove it; tell what came of it."""
    held = PidFile.acquire(Path(path))
    drop_privileges(Identity.resolve(user))
    try:
        return str(held.remove())
    except TamedError as error:
        return type(error).__name__


def remove_after_chroot(path: str, root: str) -> list[bool]:
    """Take the pid file, change the root directory and remove it."""
    held = PidFile.acquire(Path(path))
    change_root(Path(root))
    return [held.intact, held.remove()]


def take_as(path: str, user: str) -> list[str]:
    """Try to take the pid file as somebody who may not write there, and look who holds it."""
    drop_privileges(Identity.resolve(user))
    try:
        PidFile.acquire(Path(path))
    except TamedError as error:
        return [type(error).__name__, str(error), str(holder(Path(path)))]
    return []
