"""Sending to syslog: the socket of this machine, UDP or TCP, without ever waiting for anyone.

Over TCP every message has its length before it (RFC 6587, 3.4.1), so that it may have many lines. UDP loses
what the network loses.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tamed.daemon._outbox import Outbox
from tamed.daemon._syslog import SyslogMessage, classical, rfc5424
from tamed.daemon._syslogaddress import SyslogAddress
from tamed.daemon._syslogchannel import open_channel

__all__ = ["SyslogSender"]

_OF_JOURNAL = Path("/run/systemd/journal")


class SyslogSender:
    """Sends messages to one syslog daemon. Once it is made nothing raises, and nothing waits.

    While :attr:`waiting` is true, call :meth:`tend` about once a second: it connects anew and sends what
    has piled up. What piles up beyond 1 MiB is dropped and counted, and the daemon's log tells of it when
    it takes messages again. After a chroot a local socket cannot be connected to any more; one that is
    connected stays so.

    ``host`` is the name that this machine goes by; the clocks are for tests. Raises Unavailable if the name
    of the address does not resolve; that is asked once, here.
    """

    def __init__(
        self,
        address: SyslogAddress,
        *,
        host: str | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._host = socket.gethostname() if host is None else host
        self._clock = clock
        self._channel = open_channel(address, monotonic)
        self._is_classical = address.kind == "unix" and leads_to_journal(Path(address.host))
        self._outbox = Outbox(self._channel.send, self._note, clock=clock)

    @property
    def waiting(self) -> bool:
        """Whether something is yet to be sent."""
        return not self._outbox.is_empty or self._channel.is_busy

    @property
    def lost(self) -> int:
        """How many messages were dropped in all."""
        return self._outbox.lost

    def send(self, message: SyslogMessage) -> None:
        """Send a message now, or keep it until that is possible."""
        self._outbox.put(self._format(message))

    def tend(self) -> None:
        """Send what waits, as far as that is possible now."""
        self._channel.push()
        self._outbox.flush()

    def disown(self) -> None:
        """Leave what waits to the parent, in a forked child, and a stream too: two would mix on one."""
        self._channel.disown()
        self._outbox = Outbox(self._channel.send, self._note, clock=self._clock)

    def close(self) -> None:
        """Send what can be sent at once, and close. May be called again."""
        if self.waiting:
            self.tend()
        self._channel.close()

    def _format(self, message: SyslogMessage) -> bytes:
        return classical(message) if self._is_classical else rfc5424(message, self._host)

    def _note(self, sentence: str) -> bytes:
        return self._format(SyslogMessage(4, self._clock(), "tamed", str(os.getpid()), sentence))


def leads_to_journal(path: Path, journal: Path = _OF_JOURNAL) -> bool:
    """Tell whether a socket file is a link to the journal, which does not know RFC 5424."""
    return path.resolve().is_relative_to(journal)
