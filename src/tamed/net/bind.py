"""Binding sockets for an endpoint: system calls only, synchronous and without asyncio.

A single process and a supervisor that binds for its workers use the same code. Nothing here calls
``listen``: a bound socket accepts no connection until its server starts.

``SO_REUSEADDR`` is set on stream sockets, because otherwise connections of a previous run in TIME_WAIT
block the port for a minute. It does not allow two servers to listen on one port: the second is refused,
at ``bind`` if the first listens already and at ``listen`` otherwise. On datagram sockets it would allow a
second process to steal the packets, so there it is not set.

IPv6 sockets are ``IPV6_V6ONLY``: ``[::]:80`` is IPv6 only, regardless of the machine, and ``:80`` is a
socket for each family, so that IPv4 peers have IPv4 addresses.

For a unix socket ``bind`` comes first and is atomic. If the path exists, it is checked: a socket that no
process holds is stale and replaced, and nothing else is ever removed. That is done under a lock on the
directory: otherwise, if two processes find the same stale file, the second would remove the new socket of the
first.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from tamed._os.limits import sysctl
from tamed._os.unix_sockets import SocketFile, abstract_address, bind_unix, short_path
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    PermissionRefused,
    TamedError,
    Unavailable,
    from_os_error,
)
from tamed.net._endpoint_text import authority
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint, address_text

__all__ = ["Address", "Bound", "bind", "in_use", "needs_lookup", "resolve"]

_EVERY: Final = ("0.0.0.0", "::")  # noqa: S104 - the operator asks for them
_SAME_PORT_ATTEMPTS: Final = 10
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""The machine does not have the address or its family: no error if there is another address."""

_LOCK_ATTEMPTS: Final = 100
_LOCK_PAUSE: Final = 0.01
"""Seconds. Other instances hold the lock for microseconds, so a second in all is enough. Any process that can
open the directory could hold it forever."""


class Address(NamedTuple):
    """One numeric address: a family, and the argument of ``socket.bind`` and ``connect``."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    def with_port(self, port: int) -> "Address":
        """Return the same address with another port."""
        return Address(self.family, (self.sockaddr[0], port, *self.sockaddr[2:]))

    def excludes(self, other: "Address") -> bool:
        """Whether a server at this address excludes one at another address of this family."""
        (host, port), (its_host, its_port) = self.sockaddr[:2], other.sockaddr[:2]
        return port == its_port and (host == its_host or not {host, its_host}.isdisjoint(_EVERY))

    def __str__(self) -> str:
        return address_text(self.sockaddr)


class Bound(NamedTuple):
    """The bound sockets of one endpoint: non-blocking and not inheritable."""

    sockets: tuple[socket.socket, ...]
    file: SocketFile | None = None

    def close(self) -> None:
        """Remove the unix socket's file, if it is still the one that was created, and close the sockets.

        May be called again; only the first call removes the file, because the open socket keeps its inode.
        """
        if self.file is not None and any(sock.fileno() != -1 for sock in self.sockets):
            self.file.remove()
        for sock in self.sockets:
            sock.close()


def needs_lookup(endpoint: Endpoint) -> bool:
    """Return whether ``resolve`` would use a name service, which may take seconds."""
    if not isinstance(endpoint, TcpEndpoint | TlsEndpoint):
        return False
    return bool(endpoint.host) and ":" not in endpoint.host and not endpoint.host.replace(".", "").isdigit()


def resolve(
    endpoint: Endpoint,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    *,
    getaddrinfo: Callable[..., Sequence[tuple[Any, ...]]] = socket.getaddrinfo,
) -> tuple[Address, ...]:
    """Return all addresses of an endpoint's host, without duplicates; none for a unix socket.

    May block as long as the name service does. Raises ``Unavailable`` if the host does not resolve.
    """
    if not isinstance(endpoint, TcpEndpoint | TlsEndpoint):
        return ()
    if not endpoint.host:
        return (
            Address(socket.AF_INET, (_EVERY[0], endpoint.port)),
            Address(socket.AF_INET6, (_EVERY[1], endpoint.port, 0, 0)),
        )
    host = endpoint.host.encode("ascii")  # a str would be encoded as IDNA, which loads the tables of Unicode
    try:
        found = getaddrinfo(host, endpoint.port, type=kind, flags=socket.AI_PASSIVE)
    except OSError as error:
        why = f"the host name does not resolve ({error.strerror})"
        remedy = "check the name, or give an address of this machine"
        raise Unavailable(_what(endpoint), why, remedy) from error
    return tuple(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))


def bind(
    endpoint: Endpoint,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    addresses: Sequence[Address] | None = None,
    *,
    make_socket: Callable[[int, int], socket.socket] = socket.socket,
    bound_before: Callable[[Address], socket.socket | None] = lambda _: None,
) -> Bound:
    """Bind every address of an endpoint, or none.

    ``addresses`` is the result of ``resolve``, which is called here if they are missing. All get the same
    port, also when the endpoint's is 0. Addresses that this machine does not have are skipped if there is
    another. ``bound_before`` returns a socket that is bound to an address already, and is used then. Raises
    ``Unavailable``, ``PermissionRefused`` and, for unix sockets, ``MissingInput`` and
    ``CannotCreate``; ``ConfigurationError`` for an endpoint that cannot be bound for this kind of socket.
    """
    if isinstance(endpoint, TlsEndpoint) and kind != socket.SOCK_STREAM:
        raise ConfigurationError(
            _what(endpoint), "datagrams have no TLS", "write the endpoint without tls://"
        )
    if isinstance(endpoint, UnixEndpoint):
        return _bind_unix(endpoint, kind)
    if isinstance(endpoint, TcpEndpoint | TlsEndpoint):
        found = resolve(endpoint, kind) if addresses is None else addresses
        return Bound(_InetBinder(endpoint, kind, tuple(found), make_socket, bound_before).bind())
    raise ConfigurationError(f"cannot bind {endpoint}", "its sockets are inherited")


class _NotBound(Exception):
    """One address could not be bound."""

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(address, error)
        self.address = address
        self.error = error


class _InetBinder(NamedTuple):
    endpoint: TcpEndpoint | TlsEndpoint
    kind: socket.SocketKind
    addresses: tuple[Address, ...]
    make_socket: Callable[[int, int], socket.socket]
    bound_before: Callable[[Address], socket.socket | None]

    def bind(self) -> tuple[socket.socket, ...]:
        # A port that the kernel chose for the first address may be in use on the second.
        attempts = _SAME_PORT_ATTEMPTS if self.endpoint.port == 0 else 1
        while True:
            attempts -= 1
            try:
                return self._bind_all()
            except _NotBound as failure:
                if attempts == 0 or failure.error.errno != errno.EADDRINUSE:
                    raise self._refusal(failure.address, failure.error) from failure.error

    def _bind_all(self) -> tuple[socket.socket, ...]:
        sockets: list[socket.socket] = []
        absent: list[_NotBound] = []
        port = self.endpoint.port
        with ExitStack() as undo:
            for any_port in self.addresses:
                address = any_port.with_port(port)
                try:
                    sock = undo.enter_context(self._bind_one(address))
                except OSError as error:
                    failure = _NotBound(address, error)
                    if error.errno not in _ABSENT:
                        raise failure from error
                    absent.append(failure)
                else:
                    sockets.append(sock)
                    port = sock.getsockname()[1]
            if not sockets:
                raise absent[0]
            undo.pop_all()
        return tuple(sockets)

    def _bind_one(self, address: Address) -> socket.socket:
        if (sock := self.bound_before(address)) is not None:
            return sock
        with ExitStack() as undo:
            sock = undo.enter_context(self.make_socket(address.family, self.kind))
            sock.setblocking(False)
            if self.kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address.sockaddr)
            undo.pop_all()
            return sock

    def _refusal(self, address: Address, error: OSError) -> TamedError:
        what = _what(self.endpoint)
        match error.errno:
            case errno.EADDRINUSE:
                return in_use(self.endpoint, address, self.kind)
            case errno.EADDRNOTAVAIL:
                why = f"this machine has no address {address.sockaddr[0]}"
                return Unavailable(
                    what, why, "give one that `ip address` shows, or :PORT for every interface"
                )
            case errno.EAFNOSUPPORT:
                return Unavailable(
                    what, f"this machine has no {_FAMILIES[address.family]}", "give another address"
                )
            case errno.EACCES | errno.EPERM if 0 < self.endpoint.port < _lowest_free_port():
                return _needs_privilege(what)
            case _:
                return from_os_error(what, error)


_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


def in_use(endpoint: Endpoint, address: Address, kind: socket.SocketKind) -> Unavailable:
    """Return the error for an address that is in use, with the server of this process that has it.

    If there is none, it has the command that finds the other process.
    """
    if (own := _own_address(address, kind)) is not None:
        remedy = "give each server its own port; a changed address of one server needs a restart"
        return Unavailable(_what(endpoint), f"{address} is in use by this daemon, on {own}", remedy)
    command = f"ss -l{'u' if kind == socket.SOCK_DGRAM else 't'}np 'sport = :{address.sockaddr[1]}'"
    remedy = f"stop the process that listens there ({command}) or choose another port"
    return Unavailable(_what(endpoint), f"{address} is in use", remedy)


def _own_address(wanted: Address, kind: socket.SocketKind) -> Address | None:
    """Return the address of a server of this process that excludes another one at this address."""
    with suppress(OSError):  # without /proc, or closed meanwhile
        for path in Path("/proc/self/fd").iterdir():
            if path.is_socket():
                with socket.socket(fileno=os.dup(int(path.name))) as sock:
                    address = Address(sock.family, sock.getsockname())
                    is_like = (sock.family, sock.type) == (wanted.family, kind)
                    if is_like and _serves(sock) and address.excludes(wanted):
                        return address
    return None


def _serves(sock: socket.socket) -> bool:
    is_stream = sock.type == socket.SOCK_STREAM
    return not is_stream or bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _needs_privilege(what: str) -> PermissionRefused:
    lowest = _lowest_free_port()
    remedy = (
        "run as root with --user, or with CAP_NET_BIND_SERVICE, or from a systemd socket, "
        f"or choose a port from {lowest} up"
    )
    return PermissionRefused(what, f"ports below {lowest} need privileges", remedy)


def _lowest_free_port() -> int:
    lowest = sysctl("net.ipv4.ip_unprivileged_port_start")
    return 1024 if lowest is None else lowest


def _what(endpoint: Endpoint) -> str:
    if isinstance(endpoint, TcpEndpoint | TlsEndpoint):
        return f"cannot listen on {authority(endpoint.host, endpoint.port)}"
    if isinstance(endpoint, UnixEndpoint):
        endpoint = UnixEndpoint(endpoint.path)  # without its mode
    return f"cannot listen on {endpoint}"


def _bind_unix(endpoint: UnixEndpoint, kind: socket.SocketKind) -> Bound:
    """Return a bound, non-blocking socket, and its file unless it is abstract.

    Raises ``Unavailable`` if a process holds the socket, ``CannotCreate`` if the path is not a socket,
    ``MissingInput`` without the directory, ``PermissionRefused``, and ``ConfigurationError`` for a name
    that is too long. After an error no file or socket is left.
    """
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.setblocking(False)
        try:
            file = _bind_to_path(sock, endpoint)
        except OSError as error:
            raise _unix_refusal(endpoint, error) from error
        undo.pop_all()
    return Bound((sock,), file)


def _bind_to_path(sock: socket.socket, endpoint: UnixEndpoint) -> SocketFile | None:
    if endpoint.abstract:
        sock.bind(abstract_address(endpoint.path))
        return None
    path = Path(endpoint.path).absolute()
    try:
        return bind_unix(sock, path, endpoint.mode)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    with _alone_in(path.parent, endpoint):
        _require_stale(path, endpoint)
        path.unlink(missing_ok=True)
        return bind_unix(sock, path, endpoint.mode)


def _require_stale(path: Path, endpoint: UnixEndpoint) -> None:
    """Raise unless the path is free, or a socket that no process holds.

    The check connects a datagram socket: for a stream server that fails with a wrong type, and the server
    never sees a connection. A stream connection would be refused by a socket that is bound but does not
    listen yet, as by a stale one. Here only ``ECONNREFUSED`` means that no process holds the socket.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a file that is not a socket"
        raise CannotCreate(_what(endpoint), f"{what} has this path", "remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, short_path(path) as name:
        probe.setblocking(False)
        answer = probe.connect_ex(name)
    if answer == errno.EACCES:
        why = "a socket exists, and this user may not check whether it is in use"
        raise PermissionRefused(_what(endpoint), why, "remove it or choose another path")
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise _unix_in_use(endpoint)


@contextmanager
def _alone_in(directory: Path, endpoint: UnixEndpoint) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
        else:
            why = f"another process keeps {directory} locked, so its stale socket cannot be replaced"
            raise Unavailable(_what(endpoint), why, f"find it: fuser -v {directory}")
        yield
    finally:
        os.close(descriptor)


def _unix_in_use(endpoint: UnixEndpoint) -> Unavailable:
    import shlex  # not at the top: only needed for errors

    command = f"ss -xap src {shlex.quote(f'unix:{endpoint.path}')}"
    remedy = f"stop the process that listens there ({command}) or choose another path"
    return Unavailable(_what(endpoint), "a running process holds this socket", remedy)


def _unix_refusal(endpoint: UnixEndpoint, error: OSError) -> TamedError:
    what, directory = _what(endpoint), Path(endpoint.path).absolute().parent
    match error.errno:
        case errno.EADDRINUSE:
            return _unix_in_use(endpoint)
        case errno.ENOENT | errno.ENOTDIR:
            remedy = f"create it (mkdir -p {directory}) or choose another path"
            return MissingInput(what, f"there is no directory {directory}", remedy)
        case errno.EACCES | errno.EPERM:
            why = f"this user may not create a socket in {directory}"
            return PermissionRefused(what, why, "run as the directory's owner or choose another path")
        case errno.EROFS | errno.ENOSPC | errno.EDQUOT | errno.EEXIST | errno.ELOOP | errno.ENAMETOOLONG:
            return CannotCreate(what, os.strerror(error.errno), "choose another path")
        case _:
            return from_os_error(what, error)
