"""The sockets of servers: a server requests them from a socket source, which hides how they are bound.

In a single process the source is a ``LocalSource``, which binds them; in a worker it requests them from the
supervisor. The source is part of the ``ServerEnvironment``, which the process sets.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from tamed._os.descriptors import replace_with_null
from tamed._os.fork import own
from tamed._os.unix_sockets import SocketFile
from tamed.errors import ServiceMisuse, from_os_error
from tamed.net._lookup import in_thread
from tamed.net.bind import Address, bind, in_use, needs_lookup, resolve
from tamed.net.endpoint import (
    Endpoint,
    FdEndpoint,
    SystemdEndpoint,
    TlsEndpoint,
    UnixEndpoint,
    address_text,
    as_endpoint,
)
from tamed.net.inherit import Inheritance
from tamed.service.service import Service

if TYPE_CHECKING:
    from tamed.net.tls import Certificate, ServerTls

__all__ = [
    "Endpoints",
    "Gate",
    "GatedAcceptor",
    "Listener",
    "ListeningService",
    "LocalSource",
    "ServerEnvironment",
    "SocketSource",
    "current_environment",
    "set_environment",
    "use_environment",
]


class GatedAcceptor(Protocol):
    """An acceptor that a gate controls."""

    def pause_accepting(self) -> None:
        """Accept no clients until `resume_accepting` is called; they wait in the kernel's queue."""

    def resume_accepting(self) -> None:
        """Accept clients again."""


class Gate:
    """A switch for all acceptors of a process: while it is shut, they pause, and other processes accept.

    ``opened`` are called when it opens. A gate that was shut because this process was replaced opens again if
    the daemon stops, so that nobody serves any more.
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.opened: set[Callable[[], object]] = set()
        self._acceptors: dict[GatedAcceptor, None] = {}

    def add(self, acceptor: GatedAcceptor) -> None:
        """Control an acceptor from now on."""
        self._acceptors[acceptor] = None
        if not self.is_open:
            acceptor.pause_accepting()

    def remove(self, acceptor: GatedAcceptor) -> None:
        """Stop controlling an acceptor, which keeps its state. Idempotent."""
        self._acceptors.pop(acceptor, None)

    def open(self) -> None:
        """Resume accepting."""
        if not self.is_open:
            self.is_open = True
            for acceptor in tuple(self._acceptors):
                acceptor.resume_accepting()
            for call in tuple(self.opened):
                call()

    def shut(self) -> None:
        """Pause accepting; when this returns, every accepted client is being served."""
        if self.is_open:
            self.is_open = False
            for acceptor in tuple(self._acceptors):
                acceptor.pause_accepting()


class Listener:
    """The sockets of one endpoint and one kind, which it owns.

    ``sockets`` are bound, non-blocking and not inheritable; there may be several. Stream sockets accept
    connections only after ``listen``, unless they were inherited in that state. ``shared`` is whether other
    processes accept from the same sockets, so that a stopping server must leave them the backlog, and
    ``sole`` whether no other process has them. ``tls`` is that of a ``tls://`` endpoint. ``file`` is a
    unix socket's file, if ``close`` must remove it. ``addresses`` are the bound ones, as on the command line,
    with the ports that the kernel chose.
    """

    __slots__ = ("__weakref__", "_file", "addresses", "endpoint", "shared", "sockets", "sole", "tls")

    def __init__(
        self,
        endpoint: Endpoint,
        sockets: tuple[socket.socket, ...],
        *,
        shared: bool = False,
        sole: bool = False,
        tls: "ServerTls | None" = None,
        file: SocketFile | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.sockets = sockets
        self.shared = shared
        self.sole = sole
        self.tls = tls
        self.addresses = _addresses(endpoint, sockets)
        self._file = file
        own(self)

    def __repr__(self) -> str:
        return f"<Listener {', '.join(self.addresses)}>"

    def listen(self, backlog: int) -> None:
        """Call ``listen`` on stream sockets that do not listen yet.

        Raises ``Unavailable`` if another process began to listen on the same port after it was bound here.
        """
        for sock in self.sockets:
            if sock.type == socket.SOCK_DGRAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            try:
                sock.listen(backlog)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    address = Address(sock.family, sock.getsockname())
                    raise in_use(self.endpoint, address, sock.type) from error
                raise from_os_error(f"cannot listen on {self.endpoint}", error) from error

    def close(self) -> None:
        """Close the sockets, and remove the unix socket's file if it is still the one created for it.

        Idempotent.
        """
        file, self._file = self._file, None
        if file is not None:
            file.remove()
        for sock in self.sockets:
            sock.close()

    def disown(self) -> None:
        """In a forked child: leave the sockets and the file to the parent; see `tamed._os.fork`."""
        self._file = None
        replace_with_null(sock.fileno() for sock in self.sockets)


class SocketSource(Protocol):
    """The provider of sockets for servers."""

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Return bound sockets for an endpoint; the caller closes them.

        Raises ``Unavailable``, ``PermissionRefused``, ``MissingInput``, ``CannotCreate`` or
        ``ConfigurationError``; then no socket stays bound.
        """
        ...

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same as ``listen``, for callers that are not coroutines; it may block."""
        ...


class LocalSource:
    """The source of a single process: it binds sockets itself, and duplicates inherited ones.

    ``environ`` and ``pid`` are for the sockets that systemd passed. ``lookup`` finds the addresses of a host,
    outside the event loop's thread.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        pid: int | None = None,
        lookup: Callable[[Endpoint, socket.SocketKind], tuple[Address, ...]] = resolve,
    ) -> None:
        self.environ = environ
        self.pid = os.getpid() if pid is None else pid
        self.lookup = lookup

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Bind, or duplicate inherited sockets; see ``SocketSource``. This does not block the event loop."""
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return self._inherited(endpoint, kind)
        if needs_lookup(endpoint):
            addresses = await in_thread(lambda: self.lookup(endpoint, kind))
        else:
            addresses = resolve(endpoint, kind)
        return _bound(endpoint, kind, addresses)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same, but block while a name service looks up the host."""
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return self._inherited(endpoint, kind)
        return _bound(endpoint, kind, self.lookup(endpoint, kind))

    def _inherited(self, endpoint: FdEndpoint | SystemdEndpoint, kind: socket.SocketKind) -> Listener:
        # Shared: the parent keeps the sockets, and will pass them to the next process too.
        return Listener(endpoint, Inheritance(self.environ, self.pid).sockets(endpoint, kind), shared=True)


class ServerEnvironment:
    """The environment of servers in a process.

    ``drain_timeout`` is the time in seconds for the connections of a stopping server that has no value of its
    own. While the ``gate`` is shut, servers are ready but accept no clients.
    """

    def __init__(
        self, source: SocketSource | None = None, drain_timeout: float = 30.0, gate: Gate | None = None
    ) -> None:
        self.source = LocalSource() if source is None else source
        self.drain_timeout = drain_timeout
        self.gate = Gate() if gate is None else gate
        own(self)

    def disown(self) -> None:
        """In a forked child: become the environment of a single process; see `tamed._os.fork`."""
        self.source = LocalSource()
        self.gate = Gate()


_environment: ContextVar[ServerEnvironment | None] = ContextVar("tamed_server_environment", default=None)


def current_environment() -> ServerEnvironment:
    """Return the environment of the running task; if none was set, that of a single process."""
    return _environment.get() or ServerEnvironment()


def set_environment(environment: ServerEnvironment) -> None:
    """Set the environment of the running task, and of every task that it starts from now on."""
    _environment.set(environment)


@contextmanager
def use_environment(environment: ServerEnvironment) -> Iterator[ServerEnvironment]:
    """Set the environment inside the ``with`` only."""
    before = _environment.set(environment)
    try:
        yield environment
    finally:
        _environment.reset(before)


def _bound(endpoint: Endpoint, kind: socket.SocketKind, addresses: tuple[Address, ...]) -> Listener:
    tls = None
    if isinstance(endpoint, TlsEndpoint):
        from tamed.net.tls import ServerTls  # lazy import: many servers have no TLS

        tls = ServerTls(endpoint)
    bound = bind(endpoint, kind, addresses)
    return Listener(endpoint, bound.sockets, sole=True, tls=tls, file=bound.file)


def _addresses(endpoint: Endpoint, sockets: tuple[socket.socket, ...]) -> tuple[str, ...]:
    if isinstance(endpoint, UnixEndpoint):
        # Not getsockname(): a long path was bound under a shorter name, a relative one under a longer one.
        return (str(UnixEndpoint(endpoint.path)),)
    return tuple(address_text(sock.getsockname()) for sock in sockets)


Endpoints = str | Endpoint | Sequence[str | Endpoint]
"""One endpoint or several; texts are parsed by the constructor."""


class ListeningService(Service):
    """A service that binds its endpoints in ``prepare`` and closes them in ``release``.

    Its sockets come from the source of the current `ServerEnvironment`. The constructor raises
    ConfigurationError for a text that is not an endpoint.
    """

    socket_kind: ClassVar[socket.SocketKind] = socket.SOCK_STREAM

    def __init__(self, endpoint: Endpoints, *, name: str | None = None) -> None:
        super().__init__(name)
        are_several = isinstance(endpoint, Iterable) and not isinstance(endpoint, str)
        several = cast("Sequence[str | Endpoint]", endpoint if are_several else [endpoint])
        self.endpoints: tuple[Endpoint, ...] = tuple(as_endpoint(one) for one in several)
        self.listeners: tuple[Listener, ...] = ()
        if not self.endpoints:
            raise ServiceMisuse(f"{type(self).__name__} without an endpoint", remedy="pass one or more")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The bound addresses, with the ports that the kernel chose; empty while it is not bound."""
        return tuple(address for listener in self.listeners for address in listener.addresses)

    @property
    def summary(self) -> str:
        """The addresses, or the endpoints while it is not bound."""
        return ", ".join(self.addresses or map(str, self.endpoints))

    @property
    def certificates(self) -> "tuple[Certificate, ...]":
        """The certificates that the bound ``tls://`` endpoints show now."""
        return tuple(
            certificate
            for listener in self.listeners
            if listener.tls is not None
            for address in listener.addresses
            for certificate in listener.tls.certificates_at(address)
        )

    async def prepare(self) -> None:
        """Bind all endpoints, or none."""
        source = current_environment().source
        try:
            for endpoint in self.endpoints:
                self.listeners += (await source.listen(endpoint, self.socket_kind),)
        except BaseException:
            self._close_listeners()
            raise

    async def release(self) -> None:
        """Close the listeners, if `stop` has not closed them."""
        self._close_listeners()

    def _close_listeners(self) -> None:
        listeners, self.listeners = self.listeners, ()
        for listener in listeners:
            listener.close()
