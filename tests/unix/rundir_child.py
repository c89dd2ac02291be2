"""What the tests of the run directory and its sockets do as somebody else."""

import os
import socket
from pathlib import Path

from tamed._os.identity import Identity, acting_for
from tamed._os.unix_sockets import bind_unix
from tamed.errors import TamedError
from tamed.unix.pidfile import PidFile
from tamed.unix.privileges import change_root, drop_privileges
from tamed.unix.rundir import RunDirectory


def create_as(user: str, path: str, name: str) -> list[object]:
    """Make an instance's directory as a user, and return its mode, or what came of it."""
    drop_privileges(Identity.resolve(user))
    os.umask(0o077)
    try:
        instance = RunDirectory(Path(path)).create(name)
    except TamedError as error:
        return [type(error).__name__, str(error)]
    modes = [directory.stat().st_mode & 0o777 for directory in (Path(path), instance.directory)]
    return [*modes, instance.directory.stat().st_uid]


def list_as(user: str, path: str) -> list[list[str]]:
    """List the instances, and those that run, as a user."""
    drop_privileges(Identity.resolve(user))
    rundir = RunDirectory(Path(path))
    try:
        return [[one.name for one in rundir.instances()], [one.name for one in rundir.running()]]
    except TamedError as error:
        return [[type(error).__name__, str(error)]]


def live_as(user: str, path: str) -> list[object]:
    """Do as root and then as a user what a daemon does with its directory, and return what is left of it."""
    identity = Identity.resolve(user)
    instance = RunDirectory(Path(path)).create("verse", identity)
    pid_file = PidFile.acquire(instance.pid_file, owner=identity)
    with socket.socket(socket.AF_UNIX) as control:
        with acting_for(identity):
            bind_unix(control, instance.socket)
        drop_privileges(identity)
        made = sorted(entry.name for entry in instance.directory.iterdir())
        instance.socket.unlink()
        pid_file.remove()
    return [made, sorted(entry.name for entry in instance.directory.iterdir())]


def bind_without_proc(root: str, path: str) -> str:
    """Bind a socket at a long path where there is no ``/proc``."""
    change_root(Path(root))
    with socket.socket(socket.AF_UNIX) as control:
        try:
            bind_unix(control, Path(path))
        except TamedError as error:
            return f"{type(error).__name__}: {error}"
    return ""


def bind_for(user: str, path: str) -> list[object]:
    """Bind a socket for a user, and return whose it is, and who this process is then."""
    identity = Identity.resolve(user)
    before = os.getgroups()
    os.umask(0o022)
    try:
        with acting_for(identity), socket.socket(socket.AF_UNIX) as control:
            bind_unix(control, Path(path), mode=0o660)
    except OSError as error:
        told: object = error.strerror
    else:
        status = Path(path).stat()
        told = [status.st_uid, status.st_gid, status.st_mode & 0o777]
    return [told, os.getresuid(), os.getresgid(), os.getgroups() == before, os.umask(0)]
