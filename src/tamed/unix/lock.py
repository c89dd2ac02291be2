"""The process that holds a pid file: found with the kernel's help, not from the number in the file alone.

Three properties identify it, and any process may check them (``pidfile.py`` creates the file):

- the **locks** of the open file, which are those of an open file description (fcntl(2)): the process that
  runs has *life*; the process that removes a stale file has *claim*;
- the **guard**, an abstract unix socket whose name consists of the user and the path: it stays when the file
  is removed, and no other process can remove it;
- the **number** in the file, which is trusted if the process with that number has the file open, as far as
  the kernel lets us see that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from binascii import crc32
from pathlib import Path

from tamed._os.trust import TO_READ
from tamed._os.unix_sockets import peer_credentials
from tamed.errors import CannotCreate, PermissionRefused, SystemRefused, TamedError, from_creation_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = [
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

_CLAIM, _LIFE, _BOTH = (0, 1), (1, 1), (0, 2)  # first byte and number of bytes; the file may be shorter
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid, and its padding
_RECORD = struct.Struct("hhqqi0q")
_BUSY = (errno.EAGAIN, errno.EACCES)

_ROOM = 107  # bytes of a name, without the leading zero byte: unix(7)
_TAIL = 80
_QUEUE = 64  # processes that connect at the same time
_PATIENCE = 2.0  # seconds; for the case that more connect
_BOUND = Path("/proc/net/unix")


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a pid file, or None if no process does.

    The file may be missing, stale, or empty: its holder has the guard too (see `Guard`). Nothing is locked,
    and any user who can read the file may call this. Where the kernel lets this process see the holder's open
    files, the pid is trusted only if the file is among them: the owner of the directory could have written
    any number into the file.

    Raises PermissionRefused if the file cannot be read, CannotCreate if it is not a regular file, and
    SystemRefused if it is held, but not by the process with the pid in it.
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
    """Do the same as :func:`holder` for an open file; may raise ``OSError`` too."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise CannotCreate(f"pid file {path}", "it is not a regular file", "remove it, or use another")
    if not is_alive(descriptor):
        return None
    pid = number_in(descriptor)
    if pid is not None and _may_have_open(pid, os.fstat(descriptor)):
        return pid
    if not is_alive(descriptor):
        return None  # it has ended
    found = "it contains no pid" if pid is None else f"not by process {pid}, whose pid it contains"
    raise SystemRefused(f"pid file {path}", f"it is held, but {found}", f"find the process: fuser -v {path}")


def number_in(descriptor: int) -> int | None:
    """Return the pid on the first line of an open pid file, or None."""
    number = os.pread(descriptor, 32, 0).partition(b"\n")[0]
    return int(number) or None if number.isdigit() else None


def _may_have_open(pid: int, file: os.stat_result) -> bool:
    """Return whether a process has a file open; true if this process may not see that."""
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists() or _is_hidden(pid)
    except OSError:
        return True
    return any(_is_same(link, file) for link in opened)


def _is_hidden(pid: int) -> bool:
    """Return whether a process exists that ``/proc`` does not show: proc(5), ``hidepid``."""
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
    """Turn an OSError about a pid file into an error with the remedy."""
    what, why = f"pid file {path}", error.strerror or ""
    if error.errno == errno.ELOOP:
        return CannotCreate(what, "it is a symbolic link", "remove the link")
    if not path.name:  # as of /
        return CannotCreate(what, "it is a directory", "use a file")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CannotCreate(
            what, f"there is no directory {path.parent}", "create it, or use another run directory"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(what, why, "run as a user who may write there, or use another run directory")
    if error.errno == errno.ENXIO:
        return CannotCreate(what, "it is not a regular file", "remove it, or use another")
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return SystemRefused(what, why, "use a run directory on a local file system")
    return from_creation_error(what, error, "use another run directory")


def take_claim(descriptor: int) -> bool:
    """Lock *claim* alone, without waiting; return whether it was free. Needs write access."""
    return _take(descriptor, _CLAIM)


def take_life(descriptor: int) -> bool:
    """Lock *claim* and *life*, without waiting; return whether both were free. Needs write access."""
    return _take(descriptor, _BOTH)


def is_alive(descriptor: int) -> bool:
    """Return whether another open file has *life* locked. A readable descriptor is enough."""
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
    """A socket with the name of a pid file, which this process has as long as it runs.

    It is closed on exec, unless it is made inheritable just before; then the next program calls `adopt`.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Bind the name of a pid file; None if it is in use, or the system has no abstract sockets."""
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
        """Create a guard from a descriptor that was kept across an exec."""
        os.set_inheritable(descriptor, False)
        listening = socket.socket(fileno=descriptor)
        listening.setblocking(False)
        return cls(listening)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._listening.fileno()

    def housekeep(self) -> None:
        """Empty the queue of connections, to make room; the kernel has answered those clients already."""
        with contextlib.suppress(OSError):
            while True:
                self._listening.accept()[0].close()

    def close(self) -> None:
        """Release the name, unless another process has the same descriptor."""
        self._listening.close()


def guardian(path: Path) -> int | None:
    """Return the pid of the process that has the guard of a pid file, or None if there is no trusted one.

    Processes of this user, of root, and of the owner of the directory are trusted. If the directory is
    missing, its nearest existing parent counts.
    """
    for uid in {os.geteuid(), 0, _owner_above(path)}:
        name = _name(path, uid)
        if (pid := _listener(name, uid)) is not None and _is_believed(pid, name):
            return pid
    return None


def guardian_of_root(path: Path) -> int | None:
    """Return the pid of the process that has the guard, if it was root when it bound it: see `guardian`."""
    return _listener(_name(path, 0), 0)


def _name(path: Path, uid: int) -> bytes:
    whole = os.fsencode(f"{os.path.realpath(path.parent)}/{path.name}")
    name = b"\0tamed/%d" % uid + whole
    # A name that is too long is replaced by its end and a checksum: hashlib takes megabytes of memory.
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
    """Return whether a process has the socket and the same root directory; true if we may not see that."""
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
    """Return the sockets of a name, as the links in ``/proc/PID/fd`` show them: proc(5)."""
    lines = (line.split(None, 7) for line in _BOUND.read_bytes().splitlines())
    return {f"socket:[{line[6].decode()}]" for line in lines if line[7:] == [b"@" + name[1:]]}
