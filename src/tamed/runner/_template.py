"""The supervisor's side of a template: a process that forks workers; see ``template``."""

import errno
import os
import select
import time
from collections.abc import Callable

from tamed.runner._channel import Channel
from tamed.runner._message import InvalidMessage, Message, read_fault, read_number

__all__ = ["Template"]

_PATIENCE = 15.0  # seconds for a fork, which takes milliseconds unless the machine is overloaded


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
            try:
                for message, _ in self.channel.receive():
                    if "forked" in message:
                        return _forked(message)
            except InvalidMessage as error:
                raise OSError(errno.EPROTO, f"the template cannot be understood: {error}") from error
        raise OSError(errno.EAGAIN, "the template does not fork")

    def understand(self, message: Message) -> None:
        """Take what it says by itself. Raises InvalidMessage for what it cannot mean."""
        match message:
            case {"loaded": _}:
                self.is_loaded = True
                self.loaded()
            case {"fault": _}:
                self.fault = read_fault(message)
            case {"leaving": _} if not self.is_loaded:
                status = read_number(message, "leaving", most=255)
                told = f"tamed: the application ended while it was loaded, with status {status}"
                self.fault = [told], status


def _forked(message: Message) -> int:
    """Return the pid of a worker that was forked, which must be a child of this process to be its worker."""
    pid = read_number(message, "forked")
    if not pid:
        number = read_number(message, "errno")
        raise OSError(number, os.strerror(number))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises ChildProcessError
    return pid
