"""Who holds a pid file: asked of the kernel, not of the number in the file alone.

Three things tell, and any process may ask them (how the file comes to be is in ``pidfile.py``):

- the **locks** of the open file, which are those of an open file description (fcntl(2)): *life*, which the
  process that runs has, and *claim*, by which one of many removes a stale file;
- the **guard**, an abstract unix socket whose name is made of the user and the path: it stays when the file
  is removed, and nobody can take it away;
- the **number** in the file, which is believed as far as the kernel lets us see that the process it names has
  the file open.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from binascii import crc32
from pathlib import Path
from typing import Self

from tamed._os.unix_sockets import peer_credentials
from tamed.errors import CannotCreate, PermissionRefused, SystemRefused, TamedError, from_creation_error

__all__ = [
    "TO_READ",
    "Guard",
    "explain",
    "guardian",
    "guardian_of_root",
    "holder",
    "holder_of",
    "is_alive",
    "number_in",
    "take_claim",
    "take_life",
]

# Never through a symbolic link, and never waiting for the other end of a pipe that somebody put there.
TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_CLAIM, _LIFE, _BOTH = (0, 1), (1, 1), (0, 2)  # first byte and number of bytes; the file may be shorter
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid, and its padding
_RECORD = struct.Struct("hhqqi0q")
_BUSY = (errno.EAGAIN, errno.EACCES)

_ROOM = 107  # bytes of a name, beside which there is one more: unix(7)
_TAIL = 80
_QUEUE = 64  # who asks at the same time
_PATIENCE = 2.0  # seconds; for when more of them do
_BOUND = Path("/proc/net/unix")


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a pid file, or None if nobody does.

    The file may be missing, stale, or empty: whoever holds it keeps its name too (see `Guard`). Nothing is
    locked, and any user who can read the file may ask. Where the kernel lets this process see the holder's
    open files, the holder is believed only if the file is among them: who owns the directory could have
    written anything into the file.

    Raises PermissionRefused if the file cannot be read, CannotCreate if it is not a regular file, and
    SystemRefused if it is held, but not by the process that it names.
    """
    try:
        descriptor = os.open(path, TO_READ)
    except (FileNotFoundError, NotADirectoryError):
        return guardian(path)
    except OSError as error:
        raise explain(path, error) from error
    try:
        pid = holder_of(path, descriptor)
        return guardian(path) if pid is None else pid
    except OSError as error:
        raise explain(path, error) from error
    finally:
        os.close(descriptor)


def holder_of(path: Path, descriptor: int) -> int | None:
    """Do what :func:`holder` does, for an open file; ``OSError`` comes through."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise CannotCreate(f"pid file {path}", "it is not a regular file", "remove it, or name another")
    if not is_alive(descriptor):
        return None
    pid = number_in(descriptor)
    if pid is not None and _may_have_open(pid, os.fstat(descriptor)):
        return pid
    if not is_alive(descriptor):
        return None  # it ended while we looked
    told = "it names nobody" if pid is None else f"not by process {pid}, which it names"
    raise SystemRefused(
        f"pid file {path}", f"it is held, but {told}", f"see who has it open: fuser -v {path}"
    )


def number_in(descriptor: int) -> int | None:
    """Return the pid on the first line of an open pid file, or None if there is none."""
    number = os.pread(descriptor, 32, 0).partition(b"\n")[0]
    return int(number) or None if number.isdigit() else None


def _may_have_open(pid: int, file: os.stat_result) -> bool:
    """Tell whether a process has a file open, as far as this one may see; true when it may not."""
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists() or _is_hidden(pid)
    except OSError:
        return True
    return any(_is_same(link, file) for link in opened)


def _is_hidden(pid: int) -> bool:
    """Tell whether a process that ``/proc`` does not show exists after all: proc(5), ``hidepid``."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_same(link: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), file)
    except OSError:
        return False  # closed in the meantime


def explain(path: Path, error: OSError) -> TamedError:
    """Turn what the system said about a pid file into the error that tells what to do about it."""
    what, why = f"pid file {path}", error.strerror or ""
    if error.errno == errno.ELOOP:
        return CannotCreate(what, "it is a symbolic link", "remove the link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CannotCreate(
            what, f"there is no directory {path.parent}", "create it, or name another run directory"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            what, why, "run as a user who may write there, or name another run directory"
        )
    if error.errno == errno.ENXIO:
        return CannotCreate(what, "it is not a regular file", "remove it, or name another")
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return SystemRefused(what, why, "name a run directory on a local file system")
    return from_creation_error(what, error, "name another run directory")


def take_claim(descriptor: int) -> bool:
    """Take the claim alone, without waiting; tell whether it was free. Needs a writable descriptor."""
    return _take(descriptor, _CLAIM)


def take_life(descriptor: int) -> bool:
    """Take claim and life, without waiting; tell whether both were free. Needs a writable descriptor."""
    return _take(descriptor, _BOTH)


def is_alive(descriptor: int) -> bool:
    """Tell whether somebody else's open file holds life. A readable descriptor is enough."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _record(fcntl.F_RDLCK, _LIFE))
    kind: int = _RECORD.unpack_from(answer)[0]
    return kind != fcntl.F_UNLCK


def _take(descriptor: int, part: tuple[int, int]) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record(fcntl.F_WRLCK, part))
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _record(kind: int, part: tuple[int, int]) -> bytes:
    return _RECORD.pack(kind, 0, *part, 0)


class Guard:
    """The name of a pid file, held by this process as long as it lives, also if it becomes another program.

    It is closed on exec, unless it is made inheritable just before; then `adopt` it after.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Take the name of a pid file; None if somebody else has it, or the system has no such names."""
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.setblocking(False)
            listening.bind(_name(path, os.geteuid()))
            listening.listen(_QUEUE)
        except OSError:
            listening.close()
            return None
        return cls(listening)

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """Go on with a name whose descriptor came through an exec."""
        os.set_inheritable(descriptor, False)
        listening = socket.socket(fileno=descriptor)
        listening.setblocking(False)
        return cls(listening)

    def fileno(self) -> int:
        """Return the descriptor that has the name."""
        return self._listening.fileno()

    def housekeep(self) -> None:
        """Make room for those who will ask; the kernel has answered those who have."""
        with contextlib.suppress(OSError):
            while True:
                self._listening.accept()[0].close()

    def close(self) -> None:
        """Give the name up, unless another process has the same descriptor."""
        self._listening.close()


def guardian(path: Path) -> int | None:
    """Return the pid of the process that has the name of a pid file, or None if nobody has who counts.

    That is one of this user, of root, or of the owner of the folder, or of the next one above that is there.
    """
    for uid in {os.geteuid(), 0, _owner_above(path)}:
        name = _name(path, uid)
        if (pid := _listener(name, uid)) is not None and _is_believed(pid, name):
            return pid
    return None


def guardian_of_root(path: Path) -> int | None:
    """Return the process that has the name of a pid file, if it was root when it took it: see `guardian`."""
    return _listener(_name(path, 0), 0)


def _name(path: Path, uid: int) -> bytes:
    whole = os.fsencode(f"{os.path.realpath(path.parent)}/{path.name}")
    name = b"\0tamed/%d" % uid + whole
    # What is too long is told from others by its end and a sum: hashlib takes megabytes of the supervisor.
    return name if len(name) <= _ROOM else b"\0tamed/%d/%08x/" % (uid, crc32(whole)) + whole[-_TAIL:]


def _owner_above(path: Path) -> int:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return folder.stat().st_uid
    return os.geteuid()


def _listener(name: bytes, uid: int) -> int | None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_PATIENCE)
        try:
            asking.connect(name)
            peer = peer_credentials(asking)
        except OSError:
            return None
    return peer.pid if peer.pid and peer.uid == uid else None


def _is_believed(pid: int, name: bytes) -> bool:
    """Tell whether a process has the socket, and this machine's files, as far as this process may see."""
    try:
        if not os.path.samestat(Path(f"/proc/{pid}/root").stat(), Path("/").stat()):
            return False
        sockets = _sockets(name)
        return any(_leads_to(link, sockets) for link in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False  # it has ended
    except OSError:
        return True


def _leads_to(link: Path, sockets: set[str]) -> bool:
    try:
        return str(link.readlink()) in sockets
    except FileNotFoundError:
        return False  # closed in the meantime


def _sockets(name: bytes) -> set[str]:
    """Return how the links of ``/proc/PID/fd`` tell the sockets of a name: proc(5)."""
    lines = (line.split(None, 7) for line in _BOUND.read_bytes().splitlines())
    return {f"socket:[{line[6].decode()}]" for line in lines if line[7:] == [b"@" + name[1:]]}
