"""Accepting connections: one implementation for every stream server and every event loop.

``loop.create_server`` is not used, because it guarantees too little. asyncio accepts a whole backlog of
connections before it serves the first, while other processes that share the socket are idle; libuv, when
descriptors run out, accepts clients only to close them; neither can pause at a limit, or accept the
connections in the kernel's queue before the socket is closed.

``listen(2)`` silently reduces the backlog to the kernel's limit. Then clients are dropped under load, and no
log shows the reason. So this module logs a warning.
"""

import asyncio
import contextvars
import errno
import math
import resource
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

from tamed._os.descriptors import drop_new_connections
from tamed._os.limits import sysctl
from tamed.log.logger import own_logger
from tamed.net._compat import Accept, accept_of

__all__ = [
    "DEFAULT_BACKLOG",
    "Acceptor",
    "ListeningSocket",
    "OnAccept",
    "Shortage",
    "is_of_the_connection",
    "usable_backlog",
]


log = own_logger("tamed.net")

DEFAULT_BACKLOG: Final = 4096
"""The default backlog of a server: the default limit of Linux since 5.4."""

OnAccept = Callable[[int, Any], None]
"""Receives the descriptor of a new connection, which is in blocking mode, and its peer's address."""

_SOMAXCONN: Final = "net.core.somaxconn"
_QUIET: Final = 60.0  # seconds between two lines about a shortage

# accept(2) under "Error handling": Linux returns errors of the new connection, which is then closed. EPERM
# comes from a firewall, also for this connection only.
_PASSING: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        getattr(errno, "ENONET", errno.EPROTO),  # Linux only
    }
)


class ListeningSocket:
    """A listening socket, and the function that receives its connections.

    ``shared`` is whether other processes accept from the same socket, and continue when we stop, and ``sole``
    whether no other process has it. ``accept`` is the system call.
    """

    __slots__ = ("accept", "on_accept", "remaining", "shared", "sock", "sole")

    def __init__(
        self,
        sock: socket.socket,
        on_accept: OnAccept,
        *,
        shared: bool = False,
        sole: bool = False,
        accept: Accept | None = None,
    ) -> None:
        self.sock = sock
        self.on_accept = on_accept
        self.shared = shared
        self.sole = sole
        self.remaining = 0
        self.accept = accept or accept_of(sock)


class Shortage:
    """A lack of descriptors or memory that prevents a server, ``name`` in the log, from accepting.

    ``resume`` is called after ``retry_delay`` seconds, and again, until no error was reported for that time.
    The begin and the end are logged, and in between one line in a minute, with a count. This code
    imports and opens nothing, because there may be no descriptor left.
    """

    def __init__(self, name: str, resume: Callable[[], object], *, retry_delay: float = 1.0) -> None:
        self._name = name
        self._resume = resume
        self._retry_delay = retry_delay
        self._loop = asyncio.get_running_loop()
        self._is_new = False
        self._is_logged = False
        self._count = 0
        self._logged_at = -math.inf
        self._retry: asyncio.TimerHandle | None = None

    def report(self, error: OSError) -> None:
        """Record that a connection could not be accepted; the caller has paused."""
        self.end()
        self._is_new = True
        self._count += 1
        if self._loop.time() >= self._logged_at + _QUIET:
            self._log(error)
        self._retry = self._loop.call_later(self._retry_delay, self._try_again)

    def end(self) -> None:
        """Stop calling ``resume``. Idempotent."""
        if self._retry is not None:
            self._retry.cancel()

    def _try_again(self) -> None:
        """Check whether the shortage is over: no error was reported during a whole delay."""
        if self._is_new:
            self._is_new = False
            self._retry = self._loop.call_later(self._retry_delay, self._try_again)
            self._resume()
        elif self._is_logged:
            self._is_logged = False
            log.info("%s accepts connections again", self._name)

    def _log(self, error: OSError) -> None:
        times = f", {self._count} times since that was logged" if self._count > 1 else ""
        log.error(
            "%s cannot accept connections: %s%s%s; clients wait until others have disconnected",
            self._name,
            error.strerror,
            _limit_behind(error),
            times,
        )
        self._is_logged = True
        self._count = 0
        self._logged_at = self._loop.time()


class Acceptor:
    """Accepts connections on listening sockets, in the running event loop, while it is not paused.

    It accepts ``batch`` connections at most before it gives other work, and other processes, a turn. When the
    system is out of descriptors or memory, it leaves the clients in the kernel's queue and calls ``short``,
    which may close connections. It tries again after ``retry_delay`` seconds, and when `resume` is called,
    which the server should do whenever a connection was closed. `Shortage` logs this, under ``name``.

    A gate can pause it too (see `Gate`): then it accepts no clients, not even in `finish`, because the
    waiting clients belong to another process.
    """

    def __init__(
        self,
        name: str,
        sockets: Iterable[ListeningSocket],
        *,
        batch: int = 16,
        retry_delay: float = 1.0,
        short: Callable[[], object] = lambda: None,
    ) -> None:
        self.paused = True
        self._is_gated = False
        self._is_to_resume = False  # when the gate opens
        self._name = name
        self._sockets = list(sockets)
        self._batch = batch
        self._short = short
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._shortage = Shortage(name, self.resume, retry_delay=retry_delay)
        self._finished: asyncio.Future[None] | None = None

    @property
    def has_waiting_clients(self) -> bool:
        """Whether a client waits to be accepted."""
        return _have_waiting_clients(self._sockets)

    def resume(self) -> None:
        """Accept connections from now on, or once the gate is open."""
        if self._is_gated:
            self._is_to_resume = True
        elif self.paused:
            self.paused = False
            for listening in self._sockets.copy():
                # In an empty context: usually this is called in the context of a connection that ended, whose
                # variables must not leak into the next one.
                self._context.run(self._loop.add_reader, listening.sock, self._wake, listening)
                self._check_finished(listening)

    def pause(self) -> None:
        """Leave connections in the kernel's queue until `resume` is called."""
        self._is_to_resume = False
        if not self.paused:
            self.paused = True
            for listening in self._sockets:
                self._loop.remove_reader(listening.sock)

    def pause_accepting(self) -> None:
        """Accept no clients until `resume_accepting` is called."""
        was_paused = self.paused
        self.pause()
        self._is_gated = True
        self._is_to_resume = not was_paused

    def resume_accepting(self) -> None:
        """Continue after `pause_accepting`."""
        self._is_gated = False
        if self._is_to_resume:
            self.resume()

    async def finish(self, most: int) -> None:
        """Accept the waiting connections, and close each socket as soon as no client waits.

        After ``most`` more connections a socket is closed anyway: a flood of new clients must not prevent a
        server from stopping. Shared sockets, and all sockets while the gate is shut, are left to the other
        processes at once. A pause stays in effect: then this lasts until `resume` is called.
        """
        self._finished = self._loop.create_future()
        for listening in self._sockets.copy():
            listening.remaining = most
            if listening.shared or self._is_gated:
                self._leave(listening)
                continue
            if listening.sole:
                drop_new_connections(listening.sock)
            self._check_finished(listening)
        if self._sockets:
            await self._finished

    def close(self) -> None:
        """Stop accepting for good; the sockets stay open, except those that `finish` closed."""
        self.pause()
        self._sockets.clear()
        self._shortage.end()

    def _wake(self, listening: ListeningSocket) -> None:
        """Accept a batch: the event loop calls this when a client waits on the socket."""
        taken = 0
        accept, on_accept = listening.accept, listening.on_accept
        while taken < self._batch and not self.paused:
            try:
                fd, address = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if not is_of_the_connection(error):
                    self.pause()
                    self._shortage.report(error)
                    self._short()
                taken += 1
                continue
            taken += 1
            try:
                on_accept(fd, address)
            except Exception:  # a bug in Tamed: serve the next clients anyway
                log.exception("%s failed to handle a new connection", self._name)
        if self._finished is not None:
            listening.remaining -= taken
            self._check_finished(listening)

    def _check_finished(self, listening: ListeningSocket) -> None:
        """During `finish`: close a socket without waiting clients."""
        if self._finished is None or listening not in self._sockets:
            return
        if listening.remaining <= 0 or not _have_waiting_clients([listening]):
            self._leave(listening)
            listening.sock.close()

    def _leave(self, listening: ListeningSocket) -> None:
        if not self.paused:
            self._loop.remove_reader(listening.sock)
        self._sockets.remove(listening)
        if not self._sockets and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)


def _have_waiting_clients(sockets: Iterable[ListeningSocket]) -> bool:
    # Not accept(2), which fails without a free descriptor even if no client waits.
    poll = select.poll()
    for listening in sockets:
        poll.register(listening.sock, select.POLLIN)
    return bool(poll.poll(0))


def is_of_the_connection(error: OSError) -> bool:
    """Return whether an error of accept(2) concerns only the new connection, which is then closed."""
    return error.errno in _PASSING


def _limit_behind(error: OSError) -> str:
    """Return the limit that an error is about, or an empty text."""
    if error.errno == errno.EMFILE:
        return f" (RLIMIT_NOFILE is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
    return " (the limit of the system is fs.file-max)" if error.errno == errno.ENFILE else ""


_reported: Final[set[str]] = set()
"""The settings of the kernel that this process has reported as too low."""


def usable_backlog(
    wanted: int,
    *,
    limit: Callable[[], int | None] = lambda: sysctl(_SOMAXCONN),
    reported: set[str] = _reported,
) -> int:
    """Return the backlog that the kernel grants; warn, once in a process, if that is less than wanted.

    ``limit`` returns the kernel's, None if it is unknown; ``reported`` are the settings with a warning.
    """
    most = limit()
    granted = wanted if most is None else min(wanted, most)
    if granted < wanted and _SOMAXCONN not in reported:
        reported.add(_SOMAXCONN)
        text = "%s allows only %d of the %d requested waiting connections; raise it: sysctl -w %s=%d"
        log.warning(text, _SOMAXCONN, granted, wanted, _SOMAXCONN, wanted)
    return granted
