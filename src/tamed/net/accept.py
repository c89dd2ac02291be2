"""How connections are accepted: by one mechanism of ours, for every stream server and on every event loop.

The loops' own (``loop.create_server``) is not used, because it keeps too few promises. asyncio takes a whole
backlog of connections before the first of them is served, while other processes that share the socket have
nothing to do; libuv, when descriptors run out, accepts clients only to close them; neither can be made to
wait at a limit, or to take what the kernel's queue still holds before the socket is closed.

How many connections may wait in that queue is asked of ``listen(2)``, which cuts it down to the kernel's
limit without a word. Above it clients are dropped under load for a reason that no log tells. So we tell.
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

from tamed._os.limits import sysctl
from tamed.log.logger import own_logger
from tamed.net._compat import Accept, accept_of
from tamed.net.bind import drop_new_connections

__all__ = [
    "DEFAULT_BACKLOG",
    "Acceptor",
    "ListeningSocket",
    "OnAccept",
    "Once",
    "Shortage",
    "effective_backlog",
    "is_of_the_connection",
    "somaxconn",
    "usable_backlog",
]


log = own_logger("tamed.net")

DEFAULT_BACKLOG: Final = 4096
"""The backlog of a server that names none: Linux's own limit since 5.4."""

OnAccept = Callable[[int, Any], None]
"""Takes over the descriptor of a new connection, which is in blocking mode, and its peer's address."""

# accept(2) under "Error handling": Linux passes on errors of the new connection, which is then gone. EPERM is
# a firewall's word, of this connection only too.
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
    """A listening socket that connections come in by, and the function that takes them.

    ``shared`` says that other processes accept from the same socket, and go on when we stop, and ``sole``
    that no other process has it. ``accept`` is the system's.
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
    """A lack of descriptors or memory that keeps somebody from accepting, who is called ``name`` in the log.

    ``resume`` is called after ``retry_delay`` seconds, and again, until none was reported for that long. The
    log says when it begins and when it is over, and in between once in ``quiet`` seconds, with a count.
    Nothing is imported, opened or looked up for any of it: there would be no descriptor for that.
    """

    def __init__(
        self, name: str, resume: Callable[[], object], *, retry_delay: float = 1.0, quiet: float = 60.0
    ) -> None:
        self._name = name
        self._resume = resume
        self._retry_delay = retry_delay
        self._quiet = quiet
        self._loop = asyncio.get_running_loop()
        self._is_new = False
        self._is_logged = False
        self._count = 0
        self._logged_at = -math.inf
        self._retry: asyncio.TimerHandle | None = None

    def report(self, error: OSError) -> None:
        """Take note that a connection could not be accepted: whoever reports it has paused."""
        self.end()
        self._is_new = True
        self._count += 1
        if self._loop.time() >= self._logged_at + self._quiet:
            self._log(error)
        self._retry = self._loop.call_later(self._retry_delay, self._try_again)

    def end(self) -> None:
        """Do not call ``resume`` any more. May be called again."""
        if self._retry is not None:
            self._retry.cancel()

    def _try_again(self) -> None:
        """Look whether it is over: it is when there was none for a whole delay."""
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
            "%s cannot accept connections: %s%s%s; clients wait until others have left",
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

    It takes ``batch`` connections at most before other work, and other processes, have their turn. When the
    system is out of descriptors or memory, it leaves the clients in the kernel's queue and tries again when
    `resume` is called, which whoever uses it should do whenever a connection was closed, and after
    ``retry_delay`` seconds. `Shortage` says what is logged of that, by ``name``.

    ``short`` is called then, for who can make room.

    A gate can pause it besides (see `Gate`): then it accepts nobody, not even when it finishes, as those who
    wait are another process's clients.
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
    def somebody_waits(self) -> bool:
        """Whether a client waits to be accepted."""
        return _somebody_waits_at(self._sockets)

    def resume(self) -> None:
        """Accept connections from now on, or once the gate is open."""
        if self._is_gated:
            self._is_to_resume = True
        elif self.paused:
            self.paused = False
            for listening in self._sockets.copy():
                # In our own context: this is called in that of a connection that ended, as a rule, whose
                # variables are none of the next one's business.
                self._context.run(self._loop.add_reader, listening.sock, self._wake, listening)
                self._look(listening)

    def pause(self) -> None:
        """Leave connections in the kernel's queue until `resume` is called."""
        self._is_to_resume = False
        if not self.paused:
            self.paused = True
            for listening in self._sockets:
                self._loop.remove_reader(listening.sock)

    def pause_accepting(self) -> None:
        """Accept nobody until `resume_accepting` is called."""
        was_paused = self.paused
        self.pause()
        self._is_gated = True
        self._is_to_resume = not was_paused

    def resume_accepting(self) -> None:
        """Go on where it was paused."""
        self._is_gated = False
        if self._is_to_resume:
            self.resume()

    async def finish(self, most: int) -> None:
        """Accept the connections that wait already, and close each socket as soon as none does.

        After ``most`` more connections a socket is closed even so: a flood of new clients must not keep a
        server from stopping. Shared sockets, and all of them while its gate is shut, are left to the other
        processes at once. Pauses are kept: this lasts until whoever paused resumes.
        """
        self._finished = self._loop.create_future()
        for listening in self._sockets.copy():
            listening.remaining = most
            if listening.shared or self._is_gated:
                self._leave(listening)
                continue
            if listening.sole:
                drop_new_connections(listening.sock)
            self._look(listening)
        if self._sockets:
            await self._finished

    def close(self) -> None:
        """Stop accepting for good; the sockets stay open, except those that `finish` closed."""
        self.pause()
        self._sockets.clear()
        self._shortage.end()

    def _wake(self, listening: ListeningSocket) -> None:
        """Accept a batch: the loop saw that somebody waits on this socket."""
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
            except Exception:  # a fault of ours; those who come next shall be served all the same
                log.exception("%s failed to take a connection", self._name)
        if self._finished is not None:
            listening.remaining -= taken
            self._look(listening)

    def _look(self, listening: ListeningSocket) -> None:
        """While finishing: leave a socket on which nobody waits any more."""
        if self._finished is None or listening not in self._sockets:
            return
        if listening.remaining <= 0 or not _somebody_waits_at([listening]):
            self._leave(listening)
            listening.sock.close()

    def _leave(self, listening: ListeningSocket) -> None:
        if not self.paused:
            self._loop.remove_reader(listening.sock)
        self._sockets.remove(listening)
        if not self._sockets and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)


def _somebody_waits_at(sockets: Iterable[ListeningSocket]) -> bool:
    # Not accept(2), which fails without a free descriptor even if nobody waits.
    poll = select.poll()
    for listening in sockets:
        poll.register(listening.sock, select.POLLIN)
    return bool(poll.poll(0))


def is_of_the_connection(error: OSError) -> bool:
    """Tell whether an error of accept(2) is one of the new connection alone, which is then gone."""
    return error.errno in _PASSING


def _limit_behind(error: OSError) -> str:
    """Name the limit that an error is about, if there is one."""
    if error.errno == errno.EMFILE:
        return f" (RLIMIT_NOFILE is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
    return " (the limit of the system is fs.file-max)" if error.errno == errno.ENFILE else ""


class Once:
    """True the first time it is called, and never again."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self) -> bool:
        """Tell whether this is the first call."""
        first, self._done = not self._done, True
        return first


def effective_backlog(wanted: int, somaxconn: int | None) -> int:
    """Return what ``listen(wanted)`` really gives under this limit; None stands for an unknown one."""
    return wanted if somaxconn is None else min(wanted, somaxconn)


def somaxconn() -> int | None:
    """Return the kernel's limit; None where the system does not tell."""
    return sysctl("net.core.somaxconn")


_first_in_this_process = Once()


def usable_backlog(
    wanted: int,
    *,
    limit: Callable[[], int | None] = somaxconn,
    first: Callable[[], bool] = _first_in_this_process,
) -> int:
    """Return the backlog that the kernel will grant; warn, once in a process, if that is less."""
    granted = effective_backlog(wanted, limit())
    if granted < wanted and first():
        log.warning(
            "net.core.somaxconn allows %d waiting connections of the %d asked for; "
            "raise it: sysctl -w net.core.somaxconn=%d",
            granted,
            wanted,
            wanted,
        )
    return granted
