"""The control socket, on which the supervisor serves the requests of `tamed.control.instances`.

A client connects, writes one request, a JSON object on a line, and gets one answer in the same form; then the
connection is closed. A request with ``"progress": true`` may get lines with ``waiting`` before the answer:
they name the operation for which it waits. Only the owner can connect (mode 0600), so each client may request
everything.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tamed._os.identity import Identity, acting_for
from tamed._os.unix_sockets import SocketFile, bind_unix
from tamed.errors import CannotCreate, from_creation_error
from tamed.ipc.handoff import Data, Keep, decode, encode
from tamed.ipc.message import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    InvalidMessage,
    Message,
    encode_message,
    parse_message,
    read_number,
    read_text,
)
from tamed.supervisor.loop import Reactor
from tamed.supervisor.operations import Answer, Reply
from tamed.supervisor.platform import Platform
from tamed.supervisor.status import StatusRequests, answer_with_stacks
from tamed.supervisor.supervisor import Supervisor

__all__ = ["ControlApi", "ControlServer"]

_MOST_CLIENTS = 64
_SHOWN = 60  # characters of an unknown command
_PATIENCE = 10.0  # seconds for a client to send its request
_SENDING = 1.0  # seconds for a client to read the answer
_PAUSE = 1.0  # seconds until the next attempt to accept
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class ControlServer:
    """Listens on a unix socket; calls ``serve`` with each request and a `Reply`, to answer now or later.

    The caller must have the exclusive right to the path, for example by a pid file: an existing socket is
    replaced. The socket belongs to ``owner``, also while this process is root. ``inherited`` is the socket of
    the previous program, if there was one: a descriptor, and the file. An invalid request gets an error as
    its answer, and so does a request for which ``serve`` raises InvalidMessage. Each answer includes
    ``warnings``: its own, and then those that the function of this name returns.

    One descriptor is kept in reserve, so that an administrator gets an answer although the process has no
    other descriptor left. While the reserve is in use, or cannot be opened, other clients wait in the
    kernel's queue.
    """

    def __init__(
        self,
        path: Path,
        reactor: Reactor,
        serve: Callable[[Message, Reply], None],
        *,
        owner: Identity | None = None,
        inherited: tuple[int, SocketFile] | None = None,
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        self._path = path
        self._owner = owner
        self._reactor = reactor
        self._serve = serve
        self._clients: dict[int, Reply] = {}  # by descriptor
        self._warnings = warnings
        self._socket: socket.socket
        self.file: SocketFile
        if inherited is None:
            self._socket, self.file = _listening(path, owner)
        else:
            self._socket, self.file = socket.socket(fileno=inherited[0]), inherited[1]
        self._reserve = -1
        self._is_paused = True
        self._resume()

    def close(self) -> None:
        """Stop listening, disconnect all clients and remove the socket's file."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._pause()
        self._give_up_reserve()
        self.file.remove()
        self._socket.close()

    def housekeep(self) -> bool:
        """Create the socket again if its file is gone; return whether it was. Raises as the constructor."""
        if not self.file.is_lost:
            return False
        listening, file = _listening(self._path, self._owner)
        self._pause()
        self._give_up_reserve()
        self._socket.close()
        self._socket, self.file = listening, file
        self._resume()
        return True

    def fileno(self) -> int:
        """Return the descriptor of the listening socket."""
        return self._socket.fileno()

    def export(self, keep: Keep) -> list[Data]:
        """Return all clients as data: those that wait for an answer, and those without a request yet."""
        return [
            {"descriptor": keep(client.fileno()), "received": encode(client.received)}
            for client in self._clients.values()
        ]

    def resume(self, left: Sequence[Data]) -> dict[int, Reply]:
        """Resume the clients of the previous program; return the replies to those with a request."""
        replies = {}
        for data in left:
            client = self._add(socket.socket(fileno=data["descriptor"]), decode(data["received"]))
            if b"\n" in client.received:
                self._stop_waiting(client)
                replies[client.fileno()] = client
        return replies

    def serve(self, client: Reply) -> None:
        """Serve a client with a request; after `resume`, one that the previous program has not answered."""
        line, _, _ = client.received.partition(b"\n")
        try:
            self._serve(parse_message(line, LONGEST_REQUEST), client)
        except InvalidMessage as error:
            client({"error": f"not a request: {error}"})

    def answer(self, client: Reply, answer: Message) -> None:
        """Send an answer. A client that does not read can block the supervisor for a second at most."""
        if client.fileno() in self._clients:
            if "error" not in answer:
                answer = {**answer, "warnings": [*answer.get("warnings", ()), *self._warnings()]}
            with contextlib.suppress(OSError):  # the client does not read, or has disconnected
                client.socket.settimeout(_SENDING)
                client.socket.sendall(_answer_line(answer))
            self._drop(client)

    def _accept(self) -> None:
        try:
            client = self._accepted()
        except OSError as error:
            if error.errno in _SHORTAGES:
                self._pause()
                self._reactor.later(_PAUSE, self._resume)
            return  # otherwise the client has disconnected
        if len(self._clients) == _MOST_CLIENTS:
            _refuse(client, "too many clients at once")
        else:
            self._add(client)

    def _accepted(self) -> socket.socket:
        """Accept a client, with the reserved descriptor if there is no other."""
        try:
            return self._socket.accept()[0]
        except OSError as error:
            if error.errno not in _SHORTAGES or self._reserve < 0:
                raise
        self._give_up_reserve()
        return self._socket.accept()[0]

    def _pause(self) -> None:
        """Leave clients in the kernel's queue."""
        if not self._is_paused:
            self._is_paused = True
            self._reactor.unwatch(self._socket)

    def _resume(self) -> None:
        """Accept clients again, unless this was closed."""
        self._take_reserve()
        if self._is_paused and self._socket.fileno() >= 0:
            self._is_paused = False
            self._reactor.watch(self._socket, self._accept)

    def _take_reserve(self) -> None:
        if self._reserve < 0 and self._socket.fileno() >= 0:
            with contextlib.suppress(OSError):  # tried again when a client disconnects
                self._reserve = os.dup(self._socket.fileno())

    def _give_up_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _add(self, sock: socket.socket, received: bytes = b"") -> Reply:
        sock.setblocking(False)
        deadline = self._reactor.later(_PATIENCE, lambda: self._drop(client))
        client = self._clients[sock.fileno()] = Reply(self.answer, sock, deadline, received)
        self._reactor.watch(client, partial(self._read, client))
        return client

    def _read(self, client: Reply) -> None:
        try:
            data = client.socket.recv(LONGEST_REQUEST)
        except OSError:
            data = b""
        if not data:
            self._drop(client)
        elif not client.has_asked:  # otherwise it sends more than one request
            client.received += data
            line, newline, _ = client.received.partition(b"\n")
            if newline or len(line) > LONGEST_REQUEST:
                self._stop_waiting(client)
                self.serve(client)

    def _stop_waiting(self, client: Reply) -> None:
        client.has_asked = True
        client.deadline.cancel()

    def _drop(self, client: Reply) -> None:
        del self._clients[client.fileno()]
        client.deadline.cancel()
        self._reactor.unwatch(client)
        client.socket.close()
        self._resume()


def _listening(path: Path, owner: Identity | None) -> tuple[socket.socket, SocketFile]:
    what = f"cannot listen on {path}"
    with contextlib.ExitStack() as undo:
        try:
            with acting_for(owner):
                _remove_socket(path)  # left behind by a killed daemon
                sock = undo.enter_context(socket.socket(socket.AF_UNIX))
                file = bind_unix(sock, path, 0o600)
                sock.listen()
        except OSError as error:
            raise from_creation_error(what, error) from error
        undo.pop_all()
    sock.setblocking(False)
    return sock, file


def _remove_socket(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise CannotCreate(f"cannot listen on {path}", "the path exists and is not a socket", "remove it")
    path.unlink(missing_ok=True)


def _answer_line(answer: Message) -> bytes:
    try:
        return encode_message(answer, LONGEST_ANSWER)
    except InvalidMessage as error:
        return encode_message({"error": f"the answer cannot be sent: {error}"})


def _refuse(client: socket.socket, why: str) -> None:
    client.setblocking(False)
    with client, contextlib.suppress(OSError):
        client.sendall(encode_message({"error": why}))


class ControlApi:
    """Serves the requests of clients; each gets one answer."""

    def __init__(self, supervisor: Supervisor, status: StatusRequests, platform: Platform) -> None:
        self._supervisor = supervisor
        self._status = status
        self._platform = platform

    def serve(self, request: Message, answer: Answer) -> None:
        """Answer a request, now or later. On request, it is preceded by the operation it waits for.

        Raises InvalidMessage for an invalid request.
        """
        waits_for, operations = None, self._supervisor.operations
        asked = answer.asked if isinstance(answer, Reply) else ""
        match read_text(request, "command"):
            case "status":
                self._status.serve(answer)
            case "stacks":
                answer_with_stacks(answer, self._supervisor.pool, self._platform)
            case "reopen":
                answer(self._supervisor.reopen())
            case "reload":
                waits_for = operations.reload([answer], asked=asked)
            case "upgrade":
                waits_for = operations.upgrade([answer], asked=asked)
            case "resign":
                self._supervisor.roles.resign(read_text(request, "role"), answer)
            case "scale":
                count = read_number(request, "workers", -(2**31))
                yes = request.get("yes") is True
                waits_for = operations.scale(count, [answer], yes=yes, asked=asked)
            case other:
                answer({"error": f"unknown command {other[:_SHOWN]!r}"})
        if waits_for is not None and request.get("progress") is True and isinstance(answer, Reply):
            answer.progress(waits_for)
