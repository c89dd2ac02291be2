"""Where a server's sockets come from: it asks its source, and does not know whether that binds.

In a process on its own the source is a ``LocalSource``, which binds; in a worker it is one that asks the
supervisor. The source is part of the ``ServerEnvironment``, which the runner installs.
"""

import asyncio
import errno
import os
import socket
import ssl as tls
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar, Protocol, TypeVar

from tamed._os.descriptors import replace_with_null
from tamed._os.fork import own
from tamed._os.unix_sockets import SocketFile
from tamed.errors import ServiceMisuse, from_os_error
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
from tamed.net.tls import server_context
from tamed.service.service import Service

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
    """What lets clients in, and heeds a gate."""

    def pause_accepting(self) -> None:
        """Let nobody in until `resume_accepting` is called; leave those who wait where they are."""

    def resume_accepting(self) -> None:
        """Let clients in again."""


class Gate:
    """Tells every acceptor that has been added to it to pause accepting while it is shut."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self._acceptors: dict[GatedAcceptor, None] = {}

    def add(self, acceptor: GatedAcceptor) -> None:
        """Have a acceptor heed this gate from now on."""
        self._acceptors[acceptor] = None
        if not self.is_open:
            acceptor.pause_accepting()

    def remove(self, acceptor: GatedAcceptor) -> None:
        """Forget a acceptor, as it is. May be called again."""
        self._acceptors.pop(acceptor, None)

    def open(self) -> None:
        """Let clients in."""
        if not self.is_open:
            self.is_open = True
            for acceptor in tuple(self._acceptors):
                acceptor.resume_accepting()

    def shut(self) -> None:
        """Let no more clients in; when this returns, nobody has come in who is not being served."""
        if self.is_open:
            self.is_open = False
            for acceptor in tuple(self._acceptors):
                acceptor.pause_accepting()


T = TypeVar("T")


class Listener:
    """The sockets of one endpoint and one kind, and their owner.

    ``sockets`` are bound, non-blocking and not inheritable; there may be several. Streams take connections
    only after ``listen``, unless they were inherited listening. ``shared`` says that other processes accept
    from the same sockets, so that a stopping server must leave them what waits in the backlog, and ``sole``
    that no other process has them. ``ssl`` is for the connections of a ``tls://`` endpoint. ``file`` is a
    unix socket's, if closing shall remove it. ``addresses`` are the bound ones, as one would type them, with
    the ports that the kernel chose.
    """

    __slots__ = ("__weakref__", "_file", "addresses", "endpoint", "shared", "sockets", "sole", "ssl")

    def __init__(
        self,
        endpoint: Endpoint,
        sockets: tuple[socket.socket, ...],
        *,
        shared: bool = False,
        sole: bool = False,
        ssl: tls.SSLContext | None = None,
        file: SocketFile | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.sockets = sockets
        self.shared = shared
        self.sole = sole
        self.ssl = ssl
        self.addresses = _addresses(endpoint, sockets)
        self._file = file
        own(self)

    def __repr__(self) -> str:
        return f"<Listener {', '.join(self.addresses)}>"

    def listen(self, backlog: int) -> None:
        """Let connections in; sockets that listen already, and datagram sockets, are left as they are.

        Raises ``Unavailable`` if another process began to listen on the same port after it was bound here.
        """
        for sock in self.sockets:
            if sock.type == socket.SOCK_DGRAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            try:
                sock.listen(backlog)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise in_use(self.endpoint, address_text(sock.getsockname()), sock.type) from error
                raise from_os_error(f"cannot listen on {self.endpoint}", error) from error

    def close(self) -> None:
        """Close the sockets, and remove the unix socket's file if it is still the one made for it.

        May be called more than once.
        """
        file, self._file = self._file, None
        if file is not None:
            file.remove()
        for sock in self.sockets:
            sock.close()

    def disown(self) -> None:
        """Leave the sockets and the file to the parent, in a forked child; see `tamed._os.fork`."""
        self._file = None
        replace_with_null(sock.fileno() for sock in self.sockets)


class SocketSource(Protocol):
    """Whatever hands out listening sockets."""

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Return bound sockets for an endpoint; the caller closes them.

        Raises ``Unavailable``, ``PermissionRefused``, ``MissingInput``, ``CannotCreate`` or
        ``ConfigurationError``, and then nothing is left bound.
        """
        ...

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same as ``listen`` before it returns, for callers that cannot wait; it may block."""
        ...


class LocalSource:
    """The source of a process on its own: it binds by itself, and knows what it inherited.

    ``environ`` and ``pid`` tell what systemd passed to this process. ``lookup`` finds the addresses of a
    host, outside the event loop's thread.
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
        """Bind, or duplicate what was inherited; see ``SocketSource``. The loop runs on meanwhile."""
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return self._inherited(endpoint, kind)
        return _bound(endpoint, kind, await self._addresses(endpoint, kind))

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same; blocks while a name service looks up the host."""
        if isinstance(endpoint, FdEndpoint | SystemdEndpoint):
            return self._inherited(endpoint, kind)
        return _bound(endpoint, kind, self.lookup(endpoint, kind))

    async def _addresses(self, endpoint: Endpoint, kind: socket.SocketKind) -> tuple[Address, ...]:
        if not needs_lookup(endpoint):
            return resolve(endpoint, kind)
        return await _in_thread(lambda: self.lookup(endpoint, kind))

    def _inherited(self, endpoint: FdEndpoint | SystemdEndpoint, kind: socket.SocketKind) -> Listener:
        # The parent keeps its own, and what it passed once it will pass to the next process.
        return Listener(endpoint, Inheritance(self.environ, self.pid).sockets(endpoint, kind), shared=True)


class ServerEnvironment:
    """What servers find where they run.

    ``drain_timeout`` is how many seconds a stopping server gives its connections, unless it says itself.
    While the ``gate`` is shut, servers are ready and let nobody in.
    """

    def __init__(
        self, source: SocketSource | None = None, drain_timeout: float = 30.0, gate: Gate | None = None
    ) -> None:
        self.source = LocalSource() if source is None else source
        self.drain_timeout = drain_timeout
        self.gate = Gate() if gate is None else gate
        own(self)

    def disown(self) -> None:
        """Be that of a process on its own, in a forked child; see `tamed._os.fork`."""
        self.source = LocalSource()
        self.gate = Gate()


_environment: ContextVar[ServerEnvironment | None] = ContextVar("tamed_server_environment", default=None)


def current_environment() -> ServerEnvironment:
    """Return the environment of the running task; that of a process on its own if none was set."""
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
    context = server_context(endpoint) if isinstance(endpoint, TlsEndpoint) else None
    bound = bind(endpoint, kind, addresses)
    return Listener(endpoint, bound.sockets, sole=True, ssl=context, file=bound.file)


def _addresses(endpoint: Endpoint, sockets: tuple[socket.socket, ...]) -> tuple[str, ...]:
    if isinstance(endpoint, UnixEndpoint):
        # Not getsockname(): a long path was bound under a shorter name, a relative one under a longer.
        return (str(UnixEndpoint(endpoint.path)),)
    return tuple(address_text(sock.getsockname()) for sock in sockets)


async def _in_thread(call: Callable[[], T]) -> T:
    """Call in a thread that is gone when this returns.

    Not the loop's executor: its threads stay, and would keep the privileges that the process drops after
    its listeners are bound (capabilities and no_new_privs are each thread's own). And the thread is a
    daemon, so that a program that is interrupted does not wait for a name service that never answers.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # raised where the outcome is awaited
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="tamed-lookup", daemon=True)
    thread.start()
    try:
        return await asyncio.wrap_future(outcome)
    finally:
        if outcome.done():
            thread.join()


Endpoints = str | Endpoint | Sequence[str | Endpoint]
"""One endpoint or several; a text is parsed at once."""


class ListeningService(Service):
    """A service that binds its endpoints in ``prepare`` and closes what it bound in ``release``.

    Its sockets come from the source of the current `ServerEnvironment`. Raises ConfigurationError for a text
    that is no endpoint, when it is made.
    """

    socket_kind: ClassVar[socket.SocketKind] = socket.SOCK_STREAM

    def __init__(self, endpoint: Endpoints, *, name: str | None = None) -> None:
        super().__init__(name)
        several = [endpoint] if isinstance(endpoint, str | Endpoint) else endpoint
        self.endpoints: tuple[Endpoint, ...] = tuple(as_endpoint(one) for one in several)
        self.listeners: tuple[Listener, ...] = ()
        if not self.endpoints:
            raise ServiceMisuse(f"{type(self).__name__} without an endpoint", remedy="give it one or more")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it is bound to, with the ports that the kernel chose; empty while it is not."""
        return tuple(address for listener in self.listeners for address in listener.addresses)

    @property
    def summary(self) -> str:
        """Its addresses, or its endpoints while it has none."""
        return ", ".join(self.addresses or map(str, self.endpoints))

    async def prepare(self) -> None:
        """Bind every endpoint, or none."""
        source = current_environment().source
        try:
            for endpoint in self.endpoints:
                self.listeners += (await source.listen(endpoint, self.socket_kind),)
        except BaseException:
            self._close_listeners()
            raise

    async def release(self) -> None:
        """Close what was bound, if `stop` has not done so."""
        self._close_listeners()

    def _close_listeners(self) -> None:
        listeners, self.listeners = self.listeners, ()
        for listener in listeners:
            listener.close()
