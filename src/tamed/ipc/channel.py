"""Messages between the supervisor and a worker: JSON objects on lines, with file descriptors beside them.

A channel is one end of a stream socket pair (stream, because only that works everywhere and shows when the
other end is closed). It never blocks: data that the socket does not accept is queued, up to a limit, and
`Channel.flush` sends it. Descriptors arrive in order, with the line with which they were sent (SCM_RIGHTS,
unix(7)), and with close-on-exec set.

A child of the supervisor gets its `first_order` over its channel. A helper process only calls `answer_order`.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from tamed._os.descriptors import receive_descriptors, replace_with_null
from tamed._os.fork import guard_forks, own
from tamed.errors import TamedError
from tamed.ipc.fault import fault_message
from tamed.ipc.handoff import Data, Keep, decode, encode
from tamed.ipc.message import LONGEST, InvalidMessage, Message, encode_message, parse_message, read_number

__all__ = ["CHANNEL", "RECORDS", "STACKS", "Channel", "answer_order", "first_order"]

CHANNEL, RECORDS = 3, 4
"""The descriptors of a child of the supervisor: its end of the channel, and the pipe of its log."""

STACKS = signal.SIGRTMIN + 7
"""At this signal a worker prints the stacks of its threads."""

_READ = 65536
# Limits of one call of `receive`: a process that never stops sending must not keep the supervisor from
# serving all others.
_READS = 64
_MESSAGES = 1000
_MOST_DESCRIPTORS = 253  # SCM_MAX_FD in the kernel
_LIMIT = 16 * 1024 * 1024  # bytes of messages that wait to be sent


class Channel:
    """One end of the pair. ``closed`` is true when the other end is closed and all its data was received.

    ``rest`` is the beginning of a message. Only an end that ``takes_descriptors`` receives them; otherwise
    the kernel drops them, so that no other process can fill the descriptor table of a process that expects
    none.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"", *, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._takes_descriptors = takes_descriptors
        self._pieces = [rest]
        self._length = len(rest)
        self._lines: deque[bytes] = deque()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._waiting = 0
        self.closed = False
        own(self)

    @property
    def rest(self) -> bytes:
        """The received part of an incomplete message."""
        return b"".join(self._pieces)

    @property
    def waiting(self) -> int:
        """The number of bytes of messages that wait to be sent."""
        return self._waiting

    def fileno(self) -> int:
        """Return the descriptor, for a selector or an event loop."""
        return self._sock.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors, or queue it until `flush`.

        Raises OSError if the other end is closed, if the limit of the queue is reached because the other end
        does not read, if the message is too long for the other end, or if a descriptor cannot be copied.
        """
        counted = {**message, "descriptors": len(descriptors)} if descriptors else message
        try:
            line = encode_message(counted)
        except InvalidMessage as error:
            raise OSError(errno.EMSGSIZE, str(error)) from error
        if self._waiting + len(line) > _LIMIT:
            raise OSError(errno.ENOBUFS, "the other end does not read")
        self._outgoing.append((line, _copies(descriptors)))
        self._waiting += len(line)
        self.flush()

    def flush(self) -> bool:
        """Send as much of the queue as possible.

        Return whether the queue is empty. Raises as `send` does.
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
        """Yield the messages that have arrived, each with its descriptors, which the caller must close.

        The next call yields the messages that are left, if the caller stops early or the limits of a call are
        reached. Sets ``closed`` at the end of the stream; an incomplete message there is dropped. Raises
        InvalidMessage for invalid data: the channel cannot be used any more.
        """
        count = 0
        for _ in range(_READS):
            while self._lines:
                count += 1
                yield self._understand(self._lines.popleft())
            if count > _MESSAGES:
                return
            data = b"" if self.closed else self._read()
            if data is None:
                return
            if not data:
                self.closed = True
                return
            self._take(data)
        while self._lines:
            yield self._understand(self._lines.popleft())

    def _read(self) -> bytes | None:
        """Return the available data; empty at the end of the stream, None if there is no data now."""
        try:
            if not self._takes_descriptors:
                return self._sock.recv(_READ)
            data, descriptors = receive_descriptors(self._sock, _READ, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
        self._descriptors.extend(descriptors)
        return data

    def _take(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._pieces.append(first)
        self._length += len(first)
        if self._length > LONGEST:
            raise InvalidMessage("a message without an end")
        if others:
            *lines, rest = others
            self._lines += [self.rest, *lines]
            self._pieces = [rest]
            self._length = len(rest)

    def export(self, keep: Keep) -> Data:
        """Return this end as data, with the incomplete message and the queue."""
        return {
            "descriptor": -1 if self.closed else keep(self.fileno()),
            "rest": encode(self.rest),
            "unsent": [[encode(line), [keep(each) for each in copies]] for line, copies in self._outgoing],
        }

    @classmethod
    @contextlib.contextmanager
    def to_child(cls) -> "Iterator[tuple[Channel, int]]":
        """Yield a new channel, and the descriptor of its other end for a child, which gets a copy of it.

        After an error in the block the channel is closed.
        """
        ours, theirs = socket.socketpair()
        channel = cls(ours)
        with theirs:
            try:
                yield channel, theirs.fileno()
            except BaseException:
                channel.close()
                raise

    @classmethod
    def imported(cls, data: Data) -> "Channel":
        """Return the end that was exported; a closed one is closed."""
        if data["descriptor"] < 0:
            channel = cls(socket.socket(socket.AF_UNIX))
            channel.close()
            return channel
        channel = cls(socket.socket(fileno=data["descriptor"]), decode(data["rest"]))
        channel._outgoing.extend((decode(line), copies) for line, copies in data["unsent"])
        channel._waiting = sum(len(line) for line, _ in channel._outgoing)
        return channel

    def forget(self) -> None:
        """Drop all buffered data, received and unsent: the descriptor now refers to another socket."""
        self._pieces = []
        self._length = 0
        self._lines.clear()
        self._waiting = 0
        _close_all(self._descriptors)
        for _, copies in self._outgoing:
            _close_all(copies)
        self._descriptors.clear()
        self._outgoing.clear()

    def is_cut_off(self) -> bool:
        """Return whether the other end is closed, even if its data was not all received."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def disown(self) -> None:
        """In a forked child, leave the channel to the parent; see `tamed._os.fork`."""
        replace_with_null([self._sock.fileno()])
        self.closed = True
        self.forget()

    def close(self) -> None:
        """Close this end, and drop all buffered data. Idempotent."""
        self._sock.close()
        self.closed = True
        self.forget()

    def _understand(self, line: bytes) -> tuple[Message, list[int]]:
        message = parse_message(line)
        count = read_number(message, "descriptors") if "descriptors" in message else 0
        if count > len(self._descriptors):
            raise InvalidMessage("its descriptors are missing: the descriptor table was full")
        message.pop("descriptors", None)
        return message, [self._descriptors.popleft() for _ in range(count)]


def _copies(descriptors: Sequence[int]) -> list[int]:
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))  # noqa: PERF401 - on an error, the copies so far are closed
    except OSError:
        _close_all(copies)
        raise
    return copies


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def answer_order(answer: Callable[[Message], Message], channel: Channel | None = None) -> None:
    """Receive the order and send the answer to it; a TamedError is sent as a fault.

    A forked process passes its ``channel``.
    """
    guard_forks()  # computing the answer may execute the application's files
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    channel = channel or Channel(socket.socket(fileno=CHANNEL))
    order = first_order(channel)
    try:
        reply = answer(order)
    except TamedError as error:
        reply = fault_message(error)
    channel.send(reply)
    while not channel.flush():
        select.select([], [channel], [])
    channel.close()


def first_order(channel: Channel) -> Message:
    """Wait for the supervisor's first order. If there is none, exit."""
    try:
        while not channel.closed:
            select.select([channel], [], [])
            for message, _ in channel.receive():
                return message
    except InvalidMessage as error:
        sys.exit(f"the supervisor sent an invalid message: {error}")
    sys.exit("the supervisor has ended")
