"""JSON over HTTP to one of several servers, for engines: ``http.client`` in a thread.

The standard library has no HTTP client for an event loop; a request every few seconds needs none. A server
that fails is replaced by the next one, which is then tried first.
"""

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, Final, NamedTuple

from tamed._os.descriptors import reset_at_close
from tamed.cluster.engine import EngineError
from tamed.errors import reason

__all__ = ["Answer", "HttpClient"]

_LONGEST: Final = 1024 * 1024  # bytes of an answer
_THREADS: Final = 32  # usually waiting for servers that hang
_SHOWN: Final = 200  # characters shown of an invalid answer


class Answer(NamedTuple):
    """An answer: its status, and its JSON, which is an object."""

    status: int
    data: dict[str, Any]


class HttpClient:
    """Sends requests to the first server that answers, over a persistent connection.

    ``timeout`` is how long a server may be silent, in seconds. ``context`` is for TLS, None without it. Only
    one request uses a connection at a time; a concurrent request opens another one.
    """

    def __init__(
        self,
        hosts: Iterable[tuple[str, int]],
        context: ssl.SSLContext | None,
        timeout: float,
    ) -> None:
        self._hosts = list(hosts)
        self._context = context
        self._timeout = timeout
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = Lock()
        self._is_closed = False
        self._executor = ThreadPoolExecutor(_THREADS, "tamed-cluster")

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """Send a request and return the answer, whatever its status. Raises EngineError if no server answers.

        A cancellation resets the connection, so that a request in progress does not arrive later: it might
        renew a lease that has been given up.
        """
        loop = asyncio.get_running_loop()
        content = None if body is None else json.dumps(body).encode()
        failures: dict[str, str] = {}
        for host, port in list(self._hosts):
            exchange = _Exchange(method, path, content, headers)
            try:
                return await loop.run_in_executor(self._executor, self._send, (host, port), exchange)
            except (OSError, http.client.HTTPException) as error:
                failures[f"{host}:{port}"] = reason(error)
                self.prefer_others((host, port))
            except asyncio.CancelledError:  # too slow for the caller
                exchange.abort()
                self.prefer_others((host, port))
                raise
        raise EngineError("; ".join(f"{place}: {why}" for place, why in failures.items()))

    def prefer_others(self, place: tuple[str, int] | None = None) -> None:
        """Try this server last from now on; None means the one that answered last."""
        place = place or self._hosts[0]
        self._hosts.remove(place)
        self._hosts.append(place)

    def close(self) -> None:
        """Close the connections. A thread that still waits for an answer ends at its timeout."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()

    # In a thread.

    def _send(self, place: tuple[str, int], exchange: "_Exchange") -> Answer:
        while True:
            connection = self._take(place)
            is_kept = connection.sock is not None
            try:
                answer = exchange.run(connection)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                connection.close()
                if not is_kept:  # otherwise the server closed the idle connection
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                self._keep(connection)
                return answer

    def _take(self, place: tuple[str, int]) -> http.client.HTTPConnection:
        with self._lock:
            for connection in self._idle:
                if (connection.host, connection.port) == place:
                    self._idle.remove(connection)
                    return connection
        if self._context is None:
            return http.client.HTTPConnection(*place, timeout=self._timeout)
        return http.client.HTTPSConnection(*place, timeout=self._timeout, context=self._context)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)


class _Exchange:
    """A request that a thread sends, and which the event loop can abort."""

    def __init__(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        self._method = method
        self._path = path
        self._body = body
        self._headers = {**({} if body is None else {"Content-Type": "application/json"}), **headers}
        self._lock = Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._is_aborted = False

    def run(self, connection: http.client.HTTPConnection) -> Answer:
        """Send the request and return the answer; in a thread."""
        if connection.sock is None:
            connection.connect()
        with self._lock:
            if self._is_aborted:
                raise http.client.HTTPException("the request was aborted")
            self._connection = connection
        connection.request(self._method, self._path, self._body, self._headers)
        response = connection.getresponse()
        content = response.read(_LONGEST + 1)
        with self._lock:
            self._connection = None
        if len(content) > _LONGEST:
            raise http.client.HTTPException("the answer is too long")
        try:
            data = json.loads(content or b"{}")
        except ValueError:
            text = content[:_SHOWN].decode(errors="replace")
            return Answer(response.status, {"message": " ".join(text.split())})
        return Answer(response.status, data if isinstance(data, dict) else {"message": repr(data)[:_SHOWN]})

    def abort(self) -> None:
        """Wake the thread, which resets the connection: queued data is not sent."""
        with self._lock:
            self._is_aborted = True
            sock = None if self._connection is None else self._connection.sock
            if sock is not None:
                with suppress(OSError):
                    reset_at_close(sock)
                    # SSLSocket's would detach the thread's SSL object.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
