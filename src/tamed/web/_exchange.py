"""A request and its answer as the application sees them: `receive`, `send`, and the end.

This part is the same for each version of HTTP; a subclass writes the answer.
"""

import asyncio
import os
from collections.abc import Iterable
from typing import Final, Protocol

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.web._context import ServerContext
from tamed.web.asgi import ClientLeft, Message, Scope

__all__ = ["Exchange", "ExchangeConnection"]

log = own_logger("web")

_BODY_LIMIT: Final = 64 * 1024
"""Bytes of a body that are buffered for the application; at this number, reading pauses."""

_PIECE: Final = 64 * 1024
"""Bytes of a file that are read at a time, if the kernel cannot send it."""

_MOST_IGNORED: Final = 100
"""Messages that an application may send after its client has left, before `send` raises an exception."""

_HEAD, _BODY, _TRAILERS, _COMPLETE = range(4)


class ExchangeConnection(Protocol):
    """The interface of a connection for its exchange."""

    write_paused: bool
    """Whether writing is paused, because the client reads too slowly."""

    async def writable(self) -> None:
        """Wait until writing may continue, or the client has disconnected."""
        ...

    def wants_body(self) -> None:
        """Handle an application that waits for more of the request's body."""
        ...

    def on_complete(self) -> None:
        """Handle the completion of the answer."""
        ...


class Exchange:
    """One request, from the end of its headers to the end of its application.

    After an application was notified that its client has disconnected, it may end in any way: an exception is
    not reported as an error. Halfway through a drain it gets such a message as well, once, if it has received
    the whole request and calls `receive`; the message has ``draining``, the client is still connected, and
    what the application sends is sent.
    """

    def __init__(
        self,
        connection: ExchangeConnection,
        context: ServerContext,
        scope: Scope,
        awaits_continue: bool,
        now: float,
    ) -> None:
        self._connection = connection
        self._context = context
        self.scope = scope
        self.awaits_continue = awaits_continue
        """Whether the client waits for 100 (Continue) before it sends the body (RFC 9110, 10.1.1)."""
        self.more_body = True
        """Whether more of the request is still to come."""
        self.is_begun = False
        """Whether a part of the answer was sent."""
        self.is_complete = False
        """Whether the answer is complete."""
        self.status = 0
        self.sent = 0  # bytes of the body
        self.task: asyncio.Task[None] | None = None
        self._started_at = now
        self._body = b""
        self._has_all = False  # the application has the whole request
        self._changed: asyncio.Event | None = None
        self._left = False  # the application considers the client disconnected
        self._is_draining = False  # and the application has not been notified
        self._is_notified = False
        self._stage = _HEAD
        self._has_body = True  # whether the answer has a body
        self._unsent: int | None = None  # bytes of the body that Content-Length promises
        self._has_trailers = False
        self._ignored = 0  # messages sent after the client disconnected

    def has_left(self) -> bool:
        """Return whether the client disconnected before the end of its answer."""
        return self._left

    @property
    def is_head(self) -> bool:
        """Whether the method is HEAD, so that no answer has a body."""
        return bool(self.scope["method"] == "HEAD")

    async def run(self) -> None:
        """Call the application, which answers."""
        try:
            await self._context.application(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if self._left:
                log.info("cancelled an application whose client had disconnected")
            else:
                self._end("was cancelled")
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit would end the event loop, with all other requests
            self._on_error(error)
        else:
            if self._stage != _COMPLETE and not self._left:
                self._end("returned")
        finally:
            if self.task is not None:
                self._context.tasks.discard(self.task)

    # Called by the connection.

    def add_body(self, data: bytes) -> bool:
        """Buffer a part of the request's body; return whether reading should pause."""
        if self._left or self._stage == _COMPLETE:
            return False
        self._body += data
        self._notify()
        return len(self._body) > _BODY_LIMIT

    def end_body(self) -> None:
        self.more_body = False
        if self._changed is not None:
            self._changed.set()

    def notify_left(self) -> None:
        """Notify the application that its client has disconnected; its messages are then discarded."""
        if self._stage != _COMPLETE and not self._left:
            self._left = True
            if self.is_begun:
                self._log_access()
        self._notify()

    def notify_draining(self) -> None:
        """Notify the application, if it calls `receive`, that it should end."""
        self._is_draining = True
        self._notify()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    # The application's interface (ASGI, `receive` and `send`).

    async def receive(self) -> Message:
        """Return a part of the request, or ``http.disconnect`` after a disconnect or the complete answer."""
        if self.awaits_continue and self._stage == _HEAD and not self._left:
            self.awaits_continue = False
            self._ask_for_body()
        while True:
            if self._left or self._stage == _COMPLETE:
                self._is_notified = self._left
                return {"type": "http.disconnect"}
            if not self._has_all and (self._body or not self.more_body):
                body, self._body = self._body, b""
                self._has_all = not self.more_body
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            if self._has_all and self._is_draining:
                self._is_draining = False
                self._is_notified = True
                return {"type": "http.disconnect", "draining": True}
            if self._changed is None:
                self._changed = asyncio.Event()
            self._changed.clear()
            self._connection.wants_body()
            await self._changed.wait()

    async def send(self, message: Message) -> None:
        """Send a part of the answer; wait first, while the client reads too slowly.

        Raises ClientLeft in an application that has sent a hundred messages since its client disconnected.
        """
        if self._connection.write_paused and not self._left:
            await self._connection.writable()
        if self._left:
            await self._send_to_nobody()
            return
        kind = message["type"]
        if kind == "http.response.body" and self._stage == _BODY:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and self._stage == _HEAD:
            self._start(message)
        elif kind == "http.response.trailers" and self._stage == _TRAILERS:
            self._send_trailers(message)
        elif kind == "http.response.pathsend" and self._stage == _BODY:
            await self._send_file(message["path"])
        elif kind == "http.response.early_hint" and self._stage == _HEAD:
            self._write_links(message["links"])
        else:
            expected = ("http.response.start", "http.response.body", "http.response.trailers", "nothing more")
            raise RuntimeError(f"the application sent {kind}, expected {expected[self._stage]}")

    async def _send_to_nobody(self) -> None:
        """Discard a message, as ASGI before 2.4 requires, but end an application that continues forever."""
        self._ignored += 1
        if self._ignored > _MOST_IGNORED:
            self._is_notified = True
            raise ClientLeft("the client has disconnected")
        await asyncio.sleep(0)  # an application that only sends would block the loop

    def _start(self, message: Message) -> None:
        status = message["status"]
        if message.get("trailers", False):
            self._has_trailers = True
        if self.is_head or status in (204, 304):
            self._has_body = False
        length = self._write_head(status, message.get("headers", ()))
        if self._has_body:
            self._unsent = length
        self.status = status
        self._stage = _BODY

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self._has_body:
            body = b""
        size, unsent = len(body), self._unsent
        if unsent is not None:
            if size > unsent or not (more or size == unsent):
                raise RuntimeError(f"the body has {size} bytes where Content-Length leaves {unsent}")
            self._unsent = unsent - size
        self.sent += size
        self._write_body(body, more)
        if not more and not self._left:
            self._stage = _TRAILERS
            if not self._has_trailers:
                self._complete()

    async def _send_file(self, path: str) -> None:
        """Send a file as the rest of the body."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            sent = 0
            if self._has_body and self._unsent is not None and size:
                if size != self._unsent:
                    raise RuntimeError(f"{path} has {size} bytes where Content-Length leaves {self._unsent}")
                sent = await self._write_file(descriptor, size)
                self._unsent -= sent
                self.sent += sent
            while sent < size and self._has_body and not self._left:
                data = await asyncio.to_thread(os.pread, descriptor, min(size - sent, _PIECE), sent)
                if not data:  # not by the application's fault
                    text = "the file for %s became shorter while it was sent: the answer is cut off"
                    log.error(text, self.scope["path"])
                    self._cut()
                    break
                sent += len(data)
                await self.send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            os.close(descriptor)
        await self.send({"type": "http.response.body"})

    def _send_trailers(self, message: Message) -> None:
        more = message.get("more_trailers", False)
        self._write_trailers(message.get("headers", ()), more)
        if not more:
            self._complete()

    def _complete(self) -> None:
        self._stage = _COMPLETE
        self.is_complete = True
        if self._context.log_access is not None:
            self._log_access()
        if self._changed is not None:
            self._changed.set()
        self._connection.on_complete()

    def _log_access(self) -> None:
        write = self._context.log_access
        if write is not None:
            write(self.scope, self.status, self.sent, asyncio.get_running_loop().time() - self._started_at)

    # Ends without a complete answer.

    def _on_error(self, error: BaseException) -> None:
        if self._is_notified:
            log.info("an application ended after its client had disconnected: %s", reason(error))
            if self._stage != _COMPLETE and not self._left:
                self._cut()
        else:
            log.error("the web application raised", exc_info=error)
            self._fail()

    def _end(self, how: str) -> None:
        if self._is_notified:
            self._cut()  # an incomplete answer must not look complete
        else:
            state = "an incomplete answer" if self.is_begun else "no answer"
            log.error("the web application %s with %s to %s", how, state, self.scope["path"])
            self._fail()

    def _fail(self) -> None:
        """Answer with status 500, or abort an answer that has begun."""
        if self._stage == _COMPLETE or self._left:
            return
        if self.is_begun:
            self._cut()
            return
        self.status = 500
        self._write_failure()
        self._complete()

    def _cut(self) -> None:
        self._left = True
        if self.is_begun:
            self._log_access()
        self._break_off()

    # Implemented for each version of HTTP.

    def _ask_for_body(self) -> None:
        """Send 100 (Continue)."""
        raise NotImplementedError

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> int | None:
        """Send the head, or keep it for the body; return its Content-Length.

        Raises RuntimeError for an invalid status or header.
        """
        raise NotImplementedError

    def _write_body(self, body: bytes, more: bool) -> None:
        """Send a part of the body, and the end if there is no more."""
        raise NotImplementedError

    async def _write_file(self, descriptor: int, size: int) -> int:
        """Make the kernel send a file as the body; return the number of bytes sent, which may be 0."""
        return 0

    def _write_trailers(self, headers: Iterable[tuple[bytes, bytes]], more: bool) -> None:
        """Send trailers, and the end if there are no more."""
        raise NotImplementedError

    def _write_links(self, links: Iterable[bytes]) -> None:
        """Send 103 (Early Hints)."""
        raise NotImplementedError

    def _write_failure(self) -> None:
        """Send a complete answer with status 500, instead of the unsent beginning of another."""
        raise NotImplementedError

    def _break_off(self) -> None:
        """End an incomplete answer so that it does not look complete."""
        raise NotImplementedError
