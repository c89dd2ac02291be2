"""A name that one living process has, and that nobody can sweep away: an abstract unix socket (unix(7)).

A pid file can be removed while its process lives, by a sweeper of ``/tmp`` or at the end of a login session,
and then a second process could make it anew and lock it. An abstract socket has no file. Its name is made
of the user and the path of the pid file, and the kernel tells who listens on it, to whoever connects.

Anybody can bind any such name, so whom a name is believed of is asked: only a listener of the user that is
part of the name counts. A stranger who has taken a name first can neither keep a process from starting, nor
be taken for it; then the lock of the pid file is all there is. Other network namespaces have other names,
and containers may share one although their files differ: a listener that this process cannot see, or that has
another root directory, does not count either.
"""

import contextlib
import os
import socket
import struct
from binascii import crc32
from pathlib import Path
from typing import Self

__all__ = ["Guard", "guardian", "guardian_of_root"]

_ROOM = 107  # bytes of a name, beside which there is one more: unix(7)
_TAIL = 80
_QUEUE = 64  # who asks at the same time
_PATIENCE = 2.0  # seconds; for when more of them do
_CREDENTIALS = struct.Struct("iii")  # struct ucred of unix(7): pid, uid, gid
_BOUND = Path("/proc/net/unix")


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

    def tend(self) -> None:
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
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    pid, owner, _ = _CREDENTIALS.unpack(credentials)
    return pid if pid and owner == uid else None


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
