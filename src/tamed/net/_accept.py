"""How connections are accepted: by one mechanism of ours, for every stream server and on every event loop.

The loops' own (``loop.create_server``) is not used, because it keeps too few promises. asyncio takes a whole
backlog of connections before the first of them is served, while other processes that share the socket have
nothing to do; libuv, when descriptors run out, accepts clients only to close them; neither can be made to
wait at a limit, or to take what the kernel's queue still holds before the socket is closed.
"""

import asyncio
import contextvars
import errno
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

from tamed._logger import own_logger
from tamed.net._sysctl import sysctl
from tamed.net._turn_away import turn_away

__all__ = ["Acceptor", "Door", "Take"]

log = own_logger("tamed.net")

Accept = Callable[[], tuple[int, Any]]
"""Returns the descriptor of a new connection and its peer's address; raises OSError like accept(2)."""

Take = Callable[[int, Any], None]
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


class Door:
    """A listening socket that connections come in by, and the function that takes them.

    ``shared`` says that other processes accept from the same socket, and go on when we stop, and ``sole``
    that no other process has it. ``accept`` is the system's.
    """

    __slots__ = ("accept", "remaining", "shared", "sock", "sole", "take")

    def __init__(
        self,
        sock: socket.socket,
        take: Take,
        *,
        shared: bool = False,
        sole: bool = False,
        accept: Accept | None = None,
    ) -> None:
        self.sock = sock
        self.take = take
        self.shared = shared
        self.sole = sole
        self.remaining = 0
        # Not `sock.accept()`: it makes a socket object of its own class, and another would have to be
        # made from that. This is what it is made of, in every Python since 3.0 (and gevent and eventlet
        # use it too).
        self.accept: Accept = accept or sock._accept  # type: ignore[attr-defined]


class Acceptor:
    """Accepts connections on listening sockets, in the running event loop, while it is not paused.

    It takes ``batch`` connections at most before other work, and other processes, have their turn. When the
    system is out of descriptors or memory, it leaves the clients in the kernel's queue and tries again when
    `resume` is called, which whoever uses it should do whenever a connection was closed, and after
    ``retry_delay`` seconds. That is logged once when it begins and once when it is over, by ``name``.

    A gate can hold it besides (see `Gate`): then it accepts nobody, not even when it finishes, as those who
    wait are another process's clients.
    """

    def __init__(
        self, name: str, doors: Iterable[Door], *, batch: int = 16, retry_delay: float = 1.0
    ) -> None:
        self.paused = True
        self._is_held = False
        self._is_to_resume = False  # when it is held no more
        self._name = name
        self._doors = list(doors)
        self._batch = batch
        self._retry_delay = retry_delay
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._short = False
        self._retry: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[None] | None = None

    def resume(self) -> None:
        """Accept connections from now on, or once nothing holds it."""
        if self._is_held:
            self._is_to_resume = True
        elif self.paused:
            self.paused = self._short = False
            for door in self._doors.copy():
                # In our own context: this is called in that of a connection that ended, as a rule, whose
                # variables are none of the next one's business.
                self._context.run(self._loop.add_reader, door.sock, self._wake, door)
                self._look(door)

    def pause(self) -> None:
        """Leave connections in the kernel's queue until `resume` is called."""
        self._is_to_resume = False
        if not self.paused:
            self.paused = True
            for door in self._doors:
                self._loop.remove_reader(door.sock)

    def hold(self) -> None:
        """Accept nobody until `let_go` is called."""
        was_paused = self.paused
        self.pause()
        self._is_held = True
        self._is_to_resume = not was_paused

    def let_go(self) -> None:
        """Go on where it was held."""
        self._is_held = False
        if self._is_to_resume:
            self.resume()

    async def finish(self, most: int) -> None:
        """Accept the connections that wait already, and close each socket as soon as none does.

        After ``most`` more connections a socket is closed even so: a flood of new clients must not keep a
        server from stopping. Shared sockets, and all of them while a gate holds it, are left to the other
        processes at once. Pauses are kept: this lasts until whoever paused resumes.
        """
        self._finished = self._loop.create_future()
        for door in self._doors.copy():
            door.remaining = most
            if door.shared or self._is_held:
                self._leave(door)
                continue
            if door.sole:
                turn_away(door.sock)
            self._look(door)
        if self._doors:
            await self._finished

    def close(self) -> None:
        """Stop accepting for good; the sockets stay open, except those that `finish` closed."""
        self.pause()
        self._doors.clear()
        if self._retry is not None:
            self._retry.cancel()

    def _wake(self, door: Door) -> None:
        """Accept a batch: the loop saw that somebody waits at this door."""
        taken = 0
        accept, take = door.accept, door.take
        while taken < self._batch and not self.paused:
            try:
                fd, address = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _PASSING:
                    self._run_short(error)
                taken += 1
                continue
            taken += 1
            take(fd, address)
        if self._finished is not None:
            door.remaining -= taken
            self._look(door)

    def _look(self, door: Door) -> None:
        """While finishing: leave a door at which nobody waits any more."""
        if self._finished is None or door not in self._doors:
            return
        # Not accept(2), which fails without a free descriptor even if nobody waits.
        poll = select.poll()
        poll.register(door.sock, select.POLLIN)
        if door.remaining <= 0 or not poll.poll(0):
            self._leave(door)
            door.sock.close()

    def _leave(self, door: Door) -> None:
        if not self.paused:
            self._loop.remove_reader(door.sock)
        self._doors.remove(door)
        if not self._doors and self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _run_short(self, error: OSError) -> None:
        if self._retry is None:
            log.error(
                "%s cannot accept connections: %s%s; clients wait until others have left",
                self._name,
                error.strerror,
                _limit_behind(error),
            )
        else:
            self._retry.cancel()
        self.pause()
        self._short = True
        self._retry = self._loop.call_later(self._retry_delay, self._try_again)

    def _try_again(self) -> None:
        """Look whether a shortage is over: it is when there was none for a whole delay."""
        if self._short:
            self.resume()
            self._retry = self._loop.call_later(self._retry_delay, self._try_again)
        else:
            self._retry = None
            log.info("%s accepts connections again", self._name)


def _limit_behind(error: OSError) -> str:
    """Name the limit that an error is about, with its value, if there is one."""
    if error.errno == errno.EMFILE:
        import resource  # not above: few run short of descriptors

        return f" (RLIMIT_NOFILE is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
    if error.errno == errno.ENFILE:
        return f" (fs.file-max is {sysctl('fs.file-max') or 'reached'})"
    return ""
