"""Sockets that the parent process has opened: ``fd://`` and ``systemd://``.

Servers get duplicates and the originals stay open, so that a stopped server can start again. Non-blocking is
a property of the socket itself, not of the descriptor, so it also applies to the parent's descriptor.
"""

import os
import re
import socket
import stat
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Final, NamedTuple

from tamed.errors import ConfigurationError, from_os_error
from tamed.net.endpoint import FdEndpoint, SystemdEndpoint

__all__ = ["STORED", "Inheritance", "passed_descriptors", "passed_to_this_process"]

STORED: Final = "tamed,"
"""The prefix of the names of sockets that an earlier start of this daemon left with systemd."""

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_KINDS: Final = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram", socket.SOCK_SEQPACKET: "packet"}
_COUNT: Final = "[0-9]{1,7}"  # of descriptors, or a pid: the kernel has no more of either
_LEAVE_OPEN: Final = "the parent must leave it open for this process"
_PASSING_REMEDY: Final = (
    "start this by a systemd socket unit; to try it: systemd-socket-activate -l 10000 COMMAND"
)


class Inheritance(NamedTuple):
    """The descriptors that a process has inherited from its parent.

    ``environ`` has ``LISTEN_FDS``, ``LISTEN_PID`` and ``LISTEN_FDNAMES`` if systemd passed sockets, as in
    sd_listen_fds(3); ``pid`` is that of this process, and ``first`` the first descriptor that systemd uses.
    ``passed``, if it is known, are the descriptors that the parent has left open: an endpoint cannot name
    others, which this process has opened itself.
    """

    environ: Mapping[str, str]
    pid: int
    first: int = 3
    passed: Collection[int] | None = None

    def sockets(
        self, endpoint: FdEndpoint | SystemdEndpoint, kind: socket.SocketKind
    ) -> tuple[socket.socket, ...]:
        """Return duplicates of an endpoint's sockets: bound, non-blocking, not inheritable.

        Of the sockets with a systemd name, only those of this kind: a ``.socket`` unit may have both streams
        and datagrams. Raises ``ConfigurationError`` if there is none, or if one is not a bound socket. The
        originals become non-inheritable, as with sd_listen_fds(3), except descriptors 0 to 2.
        """
        what = f"cannot listen on {endpoint}"
        if isinstance(endpoint, FdEndpoint):
            return _of_kind(what, (self._duplicate(what, endpoint.fd),), kind)
        with ExitStack() as undo:
            named = [
                undo.enter_context(self._duplicate(what, fd))
                for fd in self._named(what, endpoint.socket_name)
            ]
            undo.pop_all()
        return _of_kind(what, tuple(named), kind)

    def stored(self) -> dict[int, str]:
        """Return the descriptors that an earlier start has left with systemd, with their names."""
        try:
            return {fd: name for fd, name in self._passed("").items() if name.startswith(STORED)}
        except ConfigurationError:  # systemd has passed none to this process
            return {}

    def _duplicate(self, what: str, fd: int) -> socket.socket:
        if self.passed is not None and fd not in self.passed:
            raise ConfigurationError(what, f"descriptor {fd} is not open", _LEAVE_OPEN)
        try:
            is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        except OSError as error:
            why = f"descriptor {fd} is not open"
            raise ConfigurationError(what, why, _LEAVE_OPEN) from error
        if not is_socket:
            raise ConfigurationError(what, f"descriptor {fd} is not a socket")
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError as error:
            raise from_os_error(what, error) from error
        with ExitStack() as undo:
            undo.callback(sock.close)
            _require_bound(what, fd, sock)
            if fd > 2:
                os.set_inheritable(fd, False)
            sock.setblocking(False)
            undo.pop_all()
        return sock

    def _named(self, what: str, name: str) -> list[int]:
        passed = {fd: name for fd, name in self._passed(what).items() if not name.startswith(STORED)}
        names = sorted(set(passed.values()))
        if not passed:
            raise ConfigurationError(what, "no sockets were passed (LISTEN_FDS is 0)", _PASSING_REMEDY)
        if not name and len(names) > 1:
            why = f"sockets of several names were passed: {', '.join(names)}"
            raise ConfigurationError(what, why, f"name one: systemd://{names[0]}")
        found = [fd for fd, its_name in passed.items() if not name or its_name == name]
        if not found:
            why = f"no socket of this name was passed, only: {', '.join(names)}"
            raise ConfigurationError(what, why, "see FileDescriptorName= in the socket unit")
        return found

    def _passed(self, what: str) -> dict[int, str]:
        """Return the descriptors that systemd passed, with their names."""
        if "LISTEN_FDS" not in self.environ:
            raise ConfigurationError(what, "no sockets were passed (LISTEN_FDS is not set)", _PASSING_REMEDY)
        meant_for = self._number(what, "LISTEN_PID")
        if meant_for != self.pid:
            why = (
                f"the sockets were passed to process {meant_for} (LISTEN_PID), but this is process {self.pid}"
            )
            raise ConfigurationError(
                what, why, "make systemd start this process itself, without a shell between"
            )
        count = self._number(what, "LISTEN_FDS")
        names = self.environ.get("LISTEN_FDNAMES")
        # "unknown" is the name that sd_listen_fds_with_names(3) uses then.
        known = ["unknown"] * count if names is None else names.split(":") if count else []
        if len(known) != count:
            why = f"LISTEN_FDS is {count}, but LISTEN_FDNAMES has {len(known)} names"
            raise ConfigurationError(what, why, _PASSING_REMEDY)
        return dict(enumerate(known, self.first))

    def _number(self, what: str, variable: str) -> int:
        text = self.environ.get(variable, "")
        if not re.fullmatch(_COUNT, text):
            raise ConfigurationError(what, f"{variable} is {text[:60]!r}, not a number", _PASSING_REMEDY)
        return int(text)


def passed_descriptors(environ: Mapping[str, str]) -> list[int]:
    """Return the open descriptors that systemd has passed, to this process or to a parent process."""
    count = environ.get("LISTEN_FDS", "")
    numbers = range(3, 3 + int(count)) if re.fullmatch(_COUNT, count) else ()
    return [number for number in numbers if _is_open(number)]


def passed_to_this_process(environ: Mapping[str, str]) -> list[int]:
    """Return the open descriptors that systemd has passed to this process itself."""
    return passed_descriptors(environ) if environ.get("LISTEN_PID") == str(os.getpid()) else []


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _require_bound(what: str, fd: int, sock: socket.socket) -> None:
    if sock.family not in _FAMILIES:
        raise ConfigurationError(what, f"descriptor {fd} is neither an internet nor a unix socket")
    if _is_connected(sock):
        why = f"descriptor {fd} is a connection, not a socket to listen on"
        raise ConfigurationError(what, why, "the socket unit needs Accept=no")
    name = sock.getsockname()
    if not (name if sock.family == socket.AF_UNIX else name[1]):
        raise ConfigurationError(
            what, f"descriptor {fd} is not bound to an address", "bind it before passing it"
        )


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _of_kind(
    what: str, sockets: tuple[socket.socket, ...], kind: socket.SocketKind
) -> tuple[socket.socket, ...]:
    """Return the sockets of one kind and close the others; raise ConfigurationError if there is none."""
    for other in (sock for sock in sockets if sock.type != kind):
        other.close()
    wanted = tuple(sock for sock in sockets if sock.type == kind)
    if not wanted:
        there = _KINDS.get(sockets[0].type, "another kind of")
        raise ConfigurationError(
            what, f"it is a {there} socket, but this server needs a {_KINDS[kind]} socket"
        )
    return wanted
