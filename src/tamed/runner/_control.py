"""The control socket: where an administrator's command asks the supervisor.

A client connects, writes one request, a JSON object on a line, and gets one answer in the same form; then the
connection is closed. Only the owner may connect (mode 0600), so whoever can, may.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tamed.daemon import bind_unix, connect_unix
from tamed.errors import SystemRefused, from_os_error
from tamed.runner._legacy import Keep
from tamed.runner._reactor import Reactor, Timer

__all__ = ["Answer", "ControlServer", "ask"]

Answer = Callable[[dict[str, Any]], None]

_LONGEST = 65536  # bytes of a request
_MOST_CLIENTS = 64
_PATIENCE = 10.0  # seconds for a client to say what it wants
_SENDING = 1.0  # seconds for a client to take the answer


class ControlServer:
    """Listens on a unix socket; calls ``serve`` with each request and the means to answer it, now or later.

    Whoever makes one must be the only one who may have that path, by a pid file for example: what is there is
    replaced. If this process is root, the socket is ``owner``'s, a user and group. ``inherited`` is the
    descriptor of one that the program before has listened on, if there was one.
    """

    def __init__(
        self,
        path: Path,
        reactor: Reactor,
        serve: Callable[[dict[str, Any], Answer], None],
        owner: tuple[int, int] | None = None,
        inherited: int = -1,
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._serve = serve
        self._clients: dict[socket.socket, bytes] = {}
        self._timers: dict[socket.socket, Timer] = {}
        self._served: dict[socket.socket, Answer] = {}
        self._socket = _listening(path, owner) if inherited < 0 else _adopted(inherited)
        reactor.watch(self._socket, self._accept)

    def close(self) -> None:
        """Listen no more, let all clients go and remove the socket's file."""
        self._reactor.unwatch(self._socket)
        for client in list(self._clients):
            self._drop(client)
        with contextlib.suppress(OSError):  # somebody has taken it away
            self._path.unlink()
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor of the listening socket."""
        return self._socket.fileno()

    def bequeath(self, answers: Iterable[Answer], keep: Keep) -> list[int]:
        """Return descriptors of the clients that these answers are for, who have not gone."""
        return [
            keep(client.fileno())
            for client, answer in self._served.items()
            if any(answer == each for each in answers)
        ]

    def inherit(self, clients: Iterable[int]) -> list[Answer]:
        """Go on with clients of the program before; return the means to answer them."""
        answers = []
        for descriptor in clients:
            client = _adopted(descriptor)
            self._add(client)
            answers.append(self._serve_now(client))
        return answers

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:  # it has gone away, or there are no descriptors: it will try again
            return
        if len(self._clients) == _MOST_CLIENTS:
            client.close()
            return
        self._add(client)

    def _add(self, client: socket.socket) -> None:
        client.setblocking(False)
        self._clients[client] = b""
        self._timers[client] = self._reactor.later(_PATIENCE, partial(self._drop, client))
        self._reactor.watch(client, partial(self._read, client))

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(_LONGEST)
        except OSError:
            data = b""
        self._clients[client] += data
        line, newline, _ = self._clients[client].partition(b"\n")
        if not data or len(self._clients[client]) > _LONGEST:
            self._drop(client)
        elif newline and client not in self._served:
            self._serve(_request(line), self._serve_now(client))

    def _serve_now(self, client: socket.socket) -> Answer:
        """Return the means to answer a client, which may take as long as that needs."""
        self._timers[client].cancel()
        self._served[client] = partial(self._answer, client)
        return self._served[client]

    def _answer(self, client: socket.socket, answer: dict[str, Any]) -> None:
        """Send an answer, for which a client that does not read can keep the supervisor for a second."""
        if client in self._clients:
            with contextlib.suppress(OSError):  # it does not read, or has gone away
                client.settimeout(_SENDING)
                client.sendall(json.dumps(answer).encode() + b"\n")
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._timers.pop(client).cancel()
        self._served.pop(client, None)
        self._reactor.unwatch(client)
        client.close()


def ask(path: Path, request: dict[str, Any], timeout: float | None = 10.0) -> dict[str, Any]:
    """Send a request to a supervisor's control socket and return its answer.

    Raises MissingInput if there is no socket, PermissionRefused if it is somebody else's, and SystemRefused
    if there is no answer within ``timeout`` seconds (None: however long it takes), or none to this request.
    """
    what = f"cannot ask {path}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        try:
            connect_unix(sock, path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError as error:
            raise SystemRefused(what, f"no answer within {timeout:g} seconds") from error
        except OSError as error:
            raise from_os_error(what, error) from error
    if not line:
        raise SystemRefused(what, "it ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise SystemRefused(what, answer["error"])
    return answer


def _adopted(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _listening(path: Path, owner: tuple[int, int] | None) -> socket.socket:
    what = f"cannot listen on {path}"
    sock = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)  # of one that was killed
        bind_unix(sock, path, mode=0o600, owner=owner)
        sock.listen()
    except OSError as error:
        sock.close()
        raise from_os_error(what, error) from error
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    return request if isinstance(request, dict) else {}
