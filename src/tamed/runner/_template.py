"""The supervisor's side of a template: a process that forks workers; see ``template``."""

import errno
import select
import time
from collections.abc import Callable

from tamed.runner._channel import Channel, Message

__all__ = ["Template"]

_PATIENCE = 5.0  # seconds for a fork


class Template:
    """A template process.

    ``loaded`` is called when it can fork, and ``failed`` with the reason and the status if it ends before.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        loaded: Callable[[], object],
        failed: Callable[[list[str], int], object],
    ) -> None:
        self.pid = pid
        self.channel = channel
        self.loaded = loaded
        self.failed = failed
        self.is_loaded = False
        self.fault: tuple[list[str], int] | None = None

    def fork(self, channel: int, records: int, output: int) -> int:
        """Have a worker forked that has copies of these descriptors; return its pid.

        Waits for it, since it takes milliseconds. Raises OSError if the template does not do it.
        """
        self.channel.send({"fork": True}, [channel, records, output])
        deadline = time.monotonic() + _PATIENCE
        while not self.channel.closed and (left := deadline - time.monotonic()) > 0:
            select.select([self.channel], [], [], left)
            for message, _ in self.channel.receive():
                match message:
                    case {"forked": int(pid)}:
                        return pid
        raise OSError(errno.EAGAIN, "the template does not fork")

    def understand(self, message: Message) -> None:
        """Take what it says by itself."""
        match message:
            case {"loaded": True}:
                self.is_loaded = True
                self.loaded()
            case {"fault": {"lines": [*lines], "status": int(status)}}:
                self.fault = [str(line) for line in lines], status
            case {"leaving": int(status)} if not self.is_loaded:
                told = f"tamed: the application ended while it was loaded, with status {status}"
                self.fault = [told], status
