"""An ASGI adapter for WSGI applications (PEP 3333): a thread of a pool serves each request."""

import asyncio
import contextvars
import io
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any
from urllib.parse import unquote_to_bytes

from tamed.web.asgi import ClientLeft

__all__ = ["WsgiApplication"]

_BUFFER = 64 * 1024


class WsgiApplication:
    """Calls a WSGI application in a pool of ``threads`` threads.

    A thread blocks until the client has read what was sent. When the client has disconnected, the application
    gets an error from the next read of the body, or its iterable is closed at the next part of the answer.
    ``scope`` must have the extension ``tamed.client``, whose ``left`` is a function that returns whether the
    client has disconnected: ASGI's `send` does not report that.
    """

    def __init__(self, application: Any, threads: int) -> None:
        self._application = application
        self._threads = _Threads(threads)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            raise ValueError(f"WSGI has no {scope['type']}")
        request = _Request(scope, receive, send)
        try:
            await asyncio.wrap_future(
                self._threads.call(contextvars.copy_context().run, request.serve, self._application)
            )
        except Exception as error:
            if not _is_of_the_client(error):
                raise
        finally:
            request.is_over = True  # after a cancellation, the thread may continue


class _Threads:
    """A pool of threads, each started when no other one is free.

    They are daemon threads, so that a hanging application does not keep the process from ending.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._free = threading.Semaphore(0)
        self._calls: queue.SimpleQueue[tuple[Future[None], Callable[[], None]]] = queue.SimpleQueue()

    def call(self, function: Callable[..., None], *arguments: Any) -> "Future[None]":
        """Call a function as soon as a thread is free."""
        done: Future[None] = Future()
        self._calls.put((done, lambda: function(*arguments)))
        if not self._free.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            threading.Thread(target=self._work, name=f"wsgi-{self._count}", daemon=True).start()
        return done

    def _work(self) -> None:
        while True:
            done, call = self._calls.get()
            if done.set_running_or_notify_cancel():
                try:
                    call()
                except BaseException as error:  # raised in the awaiting task
                    done.set_exception(error)
                else:
                    done.set_result(None)
            del done, call
            if self._calls.empty():
                self._free.release()


class _Request:
    """One request; its methods are called in the thread."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._scope = scope
        self._receive = receive
        self._send = send
        self._left: Callable[[], bool] = scope["extensions"]["tamed.client"]["left"]
        self._head: dict[str, Any] | None = None
        self._is_started = False

    def serve(self, application: Any) -> None:
        """Call the application, and send its answer."""
        body = io.BufferedReader(_Body(self), _BUFFER)
        answer: Iterable[bytes] = application(_environ(self._scope, body), self.start_response)
        try:
            for chunk in answer:
                self.write(chunk)
            self._start()
            self._send_and_wait({"type": "http.response.body", "body": b""})
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Set the head of the answer, which is sent with the first part of the body; see PEP 3333."""
        if exc_info is not None and self._is_started:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise RuntimeError("start_response was called a second time, without an exception")
        self._head = {
            "type": "http.response.start",
            "status": int(status.split(maxsplit=1)[0]),
            "headers": [
                (name.lower().encode("latin-1"), value.strip().encode("latin-1")) for name, value in headers
            ],
        }
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a part of the body. Raises ClientLeft if the client has disconnected."""
        if not isinstance(chunk, bytes):
            raise TypeError(f"a WSGI application must answer with bytes, not with {type(chunk).__name__}")
        if chunk:
            self._start()
            self._send_and_wait({"type": "http.response.body", "body": chunk, "more_body": True})
        self._require_client()

    def more(self) -> tuple[bytes, bool]:
        """Wait for the next part of the request's body; return it, and whether it is the last."""
        message = asyncio.run_coroutine_threadsafe(self._receive(), self._loop).result()
        if message["type"] != "http.request":
            raise ClientLeft("the client disconnected before the end of its request")
        return message.get("body", b""), not message.get("more_body", False)

    def _start(self) -> None:
        if self._is_started:
            return
        if self._head is None:
            raise RuntimeError("the WSGI application answered without calling start_response")
        self._is_started = True
        self._send_and_wait(self._head)

    def _send_and_wait(self, message: dict[str, Any]) -> None:
        self._require_client()
        asyncio.run_coroutine_threadsafe(self._send(message), self._loop).result()

    def _require_client(self) -> None:
        if self.is_over or self._left():
            raise ClientLeft("the client disconnected before the end of its answer")


class _Body(io.RawIOBase):
    """The body of a request, as it arrives."""

    def __init__(self, request: _Request) -> None:
        self._request = request
        self._rest = b""
        self._is_last = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._is_last:
            self._rest, self._is_last = self._request.more()
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _environ(scope: Any, body: "io.BufferedReader[_Body]") -> dict[str, Any]:
    """Return the WSGI environment of a request.

    Headers with an underscore are omitted, as by nginx: in the environment they have the same name as those
    with a dash, so a client could forge the headers of a proxy.
    """
    host, port = scope.get("server") or ("localhost", 80)
    path, root = unquote_to_bytes(scope["raw_path"]), scope["root_path"].encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.decode("latin-1"),
        "PATH_INFO": path.removeprefix(root).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": "",  # on a unix socket
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    if (tls := scope["extensions"].get("tls")) is not None:
        environ |= _client_certificate(tls)
    for name_bytes, value_bytes in scope["headers"]:
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        if "_" in name or name == "proxy":  # HTTP_PROXY would configure programs that the application starts
            continue
        key = name.upper().replace("-", "_")
        if name not in {"content-type", "content-length"}:
            key = f"HTTP_{key}"
        joint = "; " if name == "cookie" else ","
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    return environ


def _client_certificate(tls: dict[str, Any]) -> dict[str, str]:
    """Return the variables for a client's certificate, with the names of Apache's mod_ssl."""
    if not tls["client_cert_chain"]:
        return {"SSL_CLIENT_VERIFY": "NONE"}
    return {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": tls["client_cert_name"] or "",
        "SSL_CLIENT_CERT": tls["client_cert_chain"][0],
    }


def _is_of_the_client(error: BaseException | None) -> bool:
    """Return whether an error was caused by a disconnect, even if the application raised another one."""
    while error is not None:
        if isinstance(error, ClientLeft):
            return True
        error = error.__cause__ or error.__context__
    return False
