"""Messages between the supervisor and a worker: JSON objects on lines, with file descriptors beside them.

A channel is one end of a stream socket pair (stream, because only that works everywhere and tells when the
other end is gone). It never blocks: what the socket does not take is kept, up to a limit, and sent by
`Channel.flush`. Descriptors travel with the line they were sent with (SCM_RIGHTS, unix(7)), in order.
"""

import contextlib
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["Channel", "Message"]

Message = dict[str, Any]

_READ = 65536
_MOST_DESCRIPTORS = 253  # SCM_MAX_FD in the kernel
_LIMIT = 16 * 1024 * 1024  # bytes of messages that wait, here or on the way


class Channel:
    """One end of the pair. ``closed`` is true when the other end is gone and all from it was received.

    ``rest`` is the beginning of a message: another channel can be made from it, to go on with this socket.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        sock.setblocking(False)
        self._sock = sock
        self.rest = rest
        self._lines: deque[bytes] = deque()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._waiting = 0
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor, for a selector or an event loop."""
        return self._sock.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, with copies of descriptors, or keep it until `flush`.

        Raises OSError if the other end is gone, or has not read for so long that the limit is reached.
        """
        told = {**message, "descriptors": len(descriptors)} if descriptors else message
        line = json.dumps(told).encode() + b"\n"
        if self._waiting + len(line) > _LIMIT:
            raise OSError(errno.ENOBUFS, "the other end does not read")
        copies = [os.dup(descriptor) for descriptor in descriptors]
        self._outgoing.append((line, copies))
        self._waiting += len(line)
        self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as that is possible.

        Tell whether all of it is gone. Raises as `send` does.
        """
        while self._outgoing:
            line, descriptors = self._outgoing[0]
            try:
                sent = (
                    socket.send_fds(self._sock, [line], descriptors) if descriptors else self._sock.send(line)
                )
            except BlockingIOError:
                return False
            _close_all(descriptors)
            self._waiting -= sent
            if sent < len(line):
                self._outgoing[0] = line[sent:], ()
            else:
                self._outgoing.popleft()
        return True

    def receive(self) -> Iterator[tuple[Message, list[int]]]:
        """Yield the messages that have arrived, each with the descriptors that are now the caller's to close.

        Who stops early gets the others later. Sets ``closed`` at the end of the stream; a message that was
        cut off there is dropped. Raises ValueError for what is no message: nothing can be understood then.
        """
        while not self.closed:
            while self._lines:
                yield self._understand(self._lines.popleft())
            try:
                data, descriptors, _, _ = socket.recv_fds(self._sock, _READ, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except ConnectionError:
                data, descriptors = b"", []
            self._descriptors.extend(descriptors)
            self.closed = not data
            *lines, self.rest = (self.rest + data).split(b"\n")
            self._lines.extend(lines)
            if len(self.rest) > _LIMIT:
                raise ValueError("a message without an end")

    def forget(self) -> None:
        """Drop what came and was not taken, and what was not sent: the socket is another one from now on."""
        self.rest = b""
        self._lines.clear()
        self._waiting = 0
        self._drop_descriptors()

    def close(self) -> None:
        """Close this end, what came and was not taken, and what was not sent. May be called again."""
        self._sock.close()
        self.closed = True
        self._drop_descriptors()

    def _drop_descriptors(self) -> None:
        _close_all(self._descriptors)
        for _, copies in self._outgoing:
            _close_all(copies)
        self._descriptors.clear()
        self._outgoing.clear()

    def _understand(self, line: bytes) -> tuple[Message, list[int]]:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("expected an object")  # noqa: TRY004 - it is the other end's mistake
        count = message.pop("descriptors", 0)
        if count not in range(len(self._descriptors) + 1):
            raise ValueError("its descriptors did not come")
        return message, [self._descriptors.popleft() for _ in range(count)]


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
