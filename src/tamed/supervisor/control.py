"""The control socket: where the supervisor is asked, by `tamed.control.client`.

A client connects, writes one request, a JSON object on a line, and gets one answer in the same form; then the
connection is closed. One that has written ``"progress": true`` may get lines with ``waiting`` before that,
which say for what it waits. Only the owner can connect (mode 0600), so every client is allowed everything.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tamed._os.identity import Identity, acting_for
from tamed._os.unix_sockets import SocketFile, bind_unix
from tamed.errors import CannotCreate, from_creation_error
from tamed.ipc.handoff import Data, Keep, decode, encode
from tamed.ipc.message import InvalidMessage, Message, encode_message, parse_message
from tamed.supervisor.loop import Reactor, Timer

__all__ = ["LONGEST_ANSWER", "LONGEST_REQUEST", "Answer", "ControlServer", "Reply"]

Answer = Callable[[Message], None]

LONGEST_REQUEST: Final = 65536  # bytes
LONGEST_ANSWER: Final = 16 * 1024 * 1024

_MOST_CLIENTS = 64
_PATIENCE = 10.0  # seconds for a client to say what it wants
_SENDING = 1.0  # seconds for a client to take the answer
_PAUSE = 1.0  # seconds until accepting is tried again
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Reply:
    """The means to answer one client, which may take as long as that needs."""

    def __init__(self, server: "ControlServer", client: socket.socket) -> None:
        self._server = server
        self._client = client

    @property
    def descriptor(self) -> int:
        """The descriptor of the client's connection, negative if it is closed."""
        return self._client.fileno()

    def __call__(self, answer: Message) -> None:
        """Answer, and close the connection."""
        self._server.answer(self._client, answer)

    def progress(self, text: str) -> None:
        """Say for what the client waits."""
        with contextlib.suppress(OSError):  # it does not read, or has gone away
            self._client.send(encode_message({"waiting": text}))


class ControlServer:
    """Listens on a unix socket; calls ``serve`` with each request and the means to answer it, now or later.

    Whoever makes one must be the only one who may have that path, by a pid file for example: a socket that is
    there is replaced. The socket is ``owner``'s, also while this process is root. ``inherited`` is
    what the program before has left, if there was one: a descriptor, and the file. What is no request is
    answered with an error, and so is one for which ``serve`` raises InvalidMessage. ``warnings`` go with
    each answer, whatever was asked.

    A descriptor is kept in reserve, so that an administrator is answered although no other is left. While
    that one is in use, or if there is no room for it either, other clients wait in the kernel's queue.
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
        self._clients: dict[socket.socket, bytes] = {}
        self._timers: dict[socket.socket, Timer] = {}
        self._served: dict[socket.socket, Reply] = {}
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
        """Listen no more, let all clients go and remove the socket's file."""
        for client in list(self._clients):
            self._drop(client)
        self._pause()
        self._give_up_reserve()
        self.file.remove()
        self._socket.close()

    def housekeep(self) -> bool:
        """Listen anew if the socket's file is gone; tell whether it was. Raises as the making does."""
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
        """Return all clients as data: those who wait for an answer, and those who have yet to ask."""
        return [
            {"descriptor": keep(client.fileno()), "received": encode(received)}
            for client, received in self._clients.items()
        ]

    def resume(self, left: Sequence[Data]) -> dict[int, Reply]:
        """Go on with the clients of the program before; return the replies to those who have asked."""
        replies = {}
        for data in left:
            client = socket.socket(fileno=data["descriptor"])
            self._add(client, decode(data["received"]))
            if b"\n" in self._clients[client]:
                replies[data["descriptor"]] = self._reply_to(client)
        return replies

    def serve_again(self, reply: Reply) -> None:
        """Serve a client that the program before has not answered."""
        client = next(client for client, each in self._served.items() if each is reply)
        self._begin(client, reply)

    def answer(self, client: socket.socket, answer: Message) -> None:
        """Send an answer, for which a client that does not read can keep the supervisor for a second."""
        if client in self._clients:
            if "error" not in answer:
                answer = {**answer, "warnings": self._warnings()}
            with contextlib.suppress(OSError):  # it does not read, or has gone away
                client.settimeout(_SENDING)
                client.sendall(_answer_line(answer))
            self._drop(client)

    def _accept(self) -> None:
        try:
            client = self._accepted()
        except OSError as error:
            if error.errno in _SHORTAGES:
                self._pause()
                self._reactor.later(_PAUSE, self._resume)
            return  # else the client has gone away
        if len(self._clients) == _MOST_CLIENTS:
            _refuse(client, "too many ask at once")
        else:
            self._add(client)

    def _accepted(self) -> socket.socket:
        """Accept a client, by the descriptor in reserve if there is no other."""
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
            with contextlib.suppress(OSError):  # it is tried again whenever a client has gone
                self._reserve = os.dup(self._socket.fileno())

    def _give_up_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _add(self, client: socket.socket, received: bytes = b"") -> None:
        client.setblocking(False)
        self._clients[client] = received
        self._timers[client] = self._reactor.later(_PATIENCE, partial(self._drop, client))
        self._reactor.watch(client, partial(self._read, client))

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(LONGEST_REQUEST)
        except OSError:
            data = b""
        if not data:
            self._drop(client)
        elif client not in self._served:  # else it says more than was asked for
            self._clients[client] += data
            line, newline, _ = self._clients[client].partition(b"\n")
            if newline or len(line) > LONGEST_REQUEST:
                self._begin(client, self._reply_to(client))

    def _begin(self, client: socket.socket, reply: Reply) -> None:
        line, _, _ = self._clients[client].partition(b"\n")
        try:
            self._serve(parse_message(line, LONGEST_REQUEST), reply)
        except InvalidMessage as error:
            reply({"error": f"not a request: {error}"})

    def _reply_to(self, client: socket.socket) -> Reply:
        self._timers[client].cancel()
        reply = self._served[client] = Reply(self, client)
        return reply

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._timers.pop(client).cancel()
        self._served.pop(client, None)
        self._reactor.unwatch(client)
        client.close()
        self._resume()


def _listening(path: Path, owner: Identity | None) -> tuple[socket.socket, SocketFile]:
    what = f"cannot listen on {path}"
    with contextlib.ExitStack() as undo:
        try:
            with acting_for(owner):
                _remove_socket(path)  # of one that was killed
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
        raise CannotCreate(
            f"cannot listen on {path}", "something that is no socket is in its place", "remove it"
        )
    path.unlink(missing_ok=True)


def _answer_line(answer: Message) -> bytes:
    try:
        return encode_message(answer, LONGEST_ANSWER)
    except InvalidMessage as error:
        return encode_message({"error": f"there is an answer that cannot be sent: {error}"})


def _refuse(client: socket.socket, why: str) -> None:
    client.setblocking(False)
    with client, contextlib.suppress(OSError):
        client.sendall(encode_message({"error": why}))
