"""Listening sockets that outlive the daemon, in the file descriptor store of systemd.

systemd keeps them while it restarts the daemon, after a crash too, and passes them to the next start
(``FDSTORE=1`` in sd_notify(3), ``FileDescriptorStoreMax=`` in systemd.service(5)). Clients that connect in
between wait in the queue of the socket, and none is refused.

The variable ``FDSTORE`` is the number of descriptors that the manager keeps. systemd sets it since release
254; an exported unit sets it for earlier ones. Without it nothing is stored: the manager would only log a
warning.

A socket is stored when the daemon is ready, not when it is bound: if the start failed, clients would wait
for a daemon that never comes. Its name in the store begins with `tamed.net.inherit.STORED`, and identifies
what its address does not show: the server that requested port 0, and the file of a unix socket.
"""

import os
import re
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tamed._os.unix_sockets import SocketFile, abstract_address
from tamed.net.bind import Address, Bound
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint, address_text
from tamed.net.inherit import STORED
from tamed.unix.notify import Notifier

__all__ = ["KeptSockets", "SocketKey"]

_LONGEST: Final = 255  # bytes of a name, see sd_notify(3)
_NAME: Final = re.compile(rf"{STORED}[0-9]+,[0-9]+,(?P<device>[0-9]+),(?P<inode>[0-9]+),")


class SocketKey(NamedTuple):
    """A server's request: the address of its endpoint, the kind of socket, and a count among equals."""

    place: str
    kind: int
    ordinal: int


class _Kept(NamedTuple):
    """A socket that an earlier start left in the store."""

    name: str
    sock: socket.socket
    file: SocketFile | None

    @property
    def port(self) -> int | None:
        """Its port; None for a unix socket."""
        return None if self.sock.family == socket.AF_UNIX else int(self.sock.getsockname()[1])

    def is_of(self, file: SocketFile) -> bool:
        """Whether this is the file of the socket, by whatever path it was bound."""
        return self.file is not None and self.file.is_same(file)


class KeptSockets:
    """The sockets of this daemon in the service manager's store.

    ``most`` is the number of descriptors that the manager keeps, and ``left`` those that it has passed to
    this start, with their names; this object owns them.
    """

    def __init__(self, notifier: Notifier, most: int = 0, left: Mapping[int, str] | None = None) -> None:
        self._notifier = notifier
        self._most = most
        self._left: list[_Kept] = []
        self._names: set[str] = set()  # of all that is in the store
        for descriptor, name in (left or {}).items():
            self._names.add(name)
            if (kept := _opened(descriptor, name)) is None:
                self.forget([name])
            else:
                self._left.append(kept)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], left: Mapping[int, str] | None = None) -> "KeptSockets":
        """Connect to the manager of the environment."""
        most = environ.get("FDSTORE", "")
        is_number = re.fullmatch("[0-9]{1,7}", most) is not None
        return cls(Notifier.from_environ(environ), int(most) if is_number else 0, left)

    def close(self) -> None:
        """Close what belongs to this process; what is in the store stays there."""
        for kept in self._left:
            kept.sock.close()
        self._left.clear()
        self._notifier.close()

    # Retrieving.

    def take(self, key: SocketKey, address: Address) -> socket.socket | None:
        """Return a copy of an earlier start's socket that is bound to this address, or None.

        For port 0 it is the socket that the same server had.
        """
        for kept in self._left:
            if (kept.sock.type, kept.sock.family) != (key.kind, address.family):
                continue
            is_its_own = address.sockaddr[1] == 0 and kept.name == _name(key, kept.sock, None)
            wanted = address.with_port(kept.sock.getsockname()[1]) if is_its_own else address
            if kept.sock.getsockname() == wanted.sockaddr:
                return kept.sock.dup()
        return None

    def take_unix(self, key: SocketKey, endpoint: UnixEndpoint) -> Bound | None:
        """Return a copy of an earlier start's socket at this path, if its file still exists."""
        for kept in self._left:
            if kept.sock.type != key.kind or kept.sock.family != socket.AF_UNIX:
                continue
            if endpoint.abstract:
                if kept.sock.getsockname() == abstract_address(endpoint.path):
                    return Bound((kept.sock.dup(),))
            elif (file := _file_at(endpoint, endpoint.mode)) is not None and kept.is_of(file):
                return Bound((kept.sock.dup(),), file)
        return None

    def claim(self, bound: Bound) -> None:
        """Mark these sockets as used, so that they stay in the store."""
        used = [(sock.type, sock.getsockname()) for sock in bound.sockets]
        for kept in self._left.copy():
            if (kept.sock.type, kept.sock.getsockname()) in used:
                self._left.remove(kept)
                kept.sock.close()

    def make_way(self, endpoint: Endpoint, kind: int) -> bool:
        """Close earlier sockets that prevent an endpoint from being bound, here and in the store.

        Return whether there were any.
        """
        if isinstance(endpoint, TcpEndpoint | TlsEndpoint):
            found = [kept for kept in self._left if (kept.port, kept.sock.type) == (endpoint.port, kind)]
        elif isinstance(endpoint, UnixEndpoint) and not endpoint.abstract:
            there = _file_at(endpoint)
            found = [kept for kept in self._left if there is not None and kept.is_of(there)]
        else:
            found = []
        if found:
            self._discard(found)
            self._notifier.barrier()
        return bool(found)

    # Storing.

    def keep(self, key: SocketKey, bound: Bound) -> bool:
        """Store sockets that are not in the store yet; return whether all are."""
        for sock in bound.sockets:
            name = _name(key, sock, bound.file)
            if name in self._names:
                continue
            if len(self._names) < self._most and self._notifier.store(name, sock.fileno()):
                self._names.add(name)
        return self.has(key, bound)

    def has(self, key: SocketKey, bound: Bound) -> bool:
        """Return whether all these sockets are in the store."""
        return {_name(key, sock, bound.file) for sock in bound.sockets} <= self._names

    def discard_rest(self) -> None:
        """Close the unused sockets of earlier starts, here and in the store."""
        self._discard(self._left.copy())

    def release(self, key: SocketKey, bound: Bound) -> None:
        """Remove sockets from the store that no server uses any more."""
        self.forget(_name(key, sock, bound.file) for sock in bound.sockets)

    def forget(self, names: Iterable[str]) -> None:
        """Remove what has these names from the store."""
        for name in set(names) & self._names:
            self._notifier.remove_stored(name)
            self._names.discard(name)

    @property
    def trouble(self) -> str:
        """The reason why sockets are not kept; empty without a store."""
        if self._most == 0:
            return ""
        why = f"the service manager keeps {self._most} at most (FileDescriptorStoreMax=)"
        return f"not all listening sockets outlive a restart: {why}; export the unit again"

    def names(self, key: SocketKey, bound: Bound) -> list[str]:
        """Return the names of those of these sockets that are in the store."""
        return sorted({_name(key, sock, bound.file) for sock in bound.sockets} & self._names)

    def resume(self, names: Iterable[str]) -> None:
        """Resume with the names that the previous program stored."""
        self._names.update(names)

    def _discard(self, found: Iterable[_Kept]) -> None:
        for kept in found:
            self._left.remove(kept)
            self.forget([kept.name])
            if kept.file is not None:
                kept.file.remove()
            kept.sock.close()


def _opened(descriptor: int, name: str) -> _Kept | None:
    """Return the socket of a descriptor; close it and return None if Tamed did not store it."""
    parts = _NAME.match(name)
    try:
        is_ours = parts is not None and stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return None
    if parts is None or not is_ours:
        os.close(descriptor)
        return None
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    inode = int(parts["inode"])
    address = sock.getsockname()
    file = SocketFile(str(address), int(parts["device"]), inode) if inode else None
    return _Kept(name, sock, file)


def _file_at(endpoint: UnixEndpoint, mode: int | None = None) -> SocketFile | None:
    """Return the file at an endpoint's path, or None if its mode differs from ``mode``."""
    path = Path(endpoint.path)
    try:
        there, its_mode = SocketFile.at(path), stat.S_IMODE(path.lstat().st_mode)
    except OSError:
        return None
    return there if mode in (None, its_mode) else None


def _name(key: SocketKey, sock: socket.socket, file: SocketFile | None) -> str:
    """Return the name of a socket in the store. It may be truncated: a file is identified by its numbers."""
    device, inode = (0, 0) if file is None else (file.device, file.inode)
    address = "" if sock.family == socket.AF_UNIX else _quoted(address_text(sock.getsockname()))
    numbers = f"{int(sock.type)},{key.ordinal},{device},{inode}"
    return f"{STORED}{numbers},{address},{_quoted(key.place)}"[:_LONGEST]


def _quoted(text: str) -> str:
    """Escape the comma and each byte that a name cannot contain."""
    return "".join(
        chr(byte) if 0x20 < byte < 0x7F and chr(byte) not in ":,%" else f"%{byte:02X}"
        for byte in os.fsencode(text)
    )
