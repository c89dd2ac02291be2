r"""The journal of systemd, in its native protocol: records of fields instead of lines of text.

A record is one datagram to ``/run/systemd/journal/socket`` (systemd, "Native Journal Protocol"). A field is
``NAME=value\n``, or, where the value has a newline in it, ``NAME\n``, its length in 64 bits, little-endian,
the value and ``\n``. A record that is too long for a datagram goes into a sealed file in memory
(memfd_create(2)) whose descriptor is sent.
"""

import array
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tamed.log.outbox import Outbox
from tamed.log.plan import Sink
from tamed.log.record import Record

__all__ = ["JOURNAL_SOCKET", "JournalSender", "encode_fields"]

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
_WARNING = "4"


def encode_fields(fields: Mapping[str, str | bytes]) -> bytes:
    """Encode a record. Names are capitals, digits and underscores."""
    encoded = []
    for name, value in fields.items():
        data = value if isinstance(value, bytes) else value.encode(errors="backslashreplace")
        if b"\n" in data:
            encoded.append(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            encoded.append(b"%b=%b\n" % (name.encode(), data))
    return b"".join(encoded)


class JournalSender(Sink):
    """Sends records to the journal. It never waits, and raises nothing.

    While `waiting` is true, call `housekeep` about once a second. Records that the journal does not accept
    are kept, up to 1 MiB; more are dropped and counted, and the loss is reported in the journal when it
    accepts records again. The socket is connected at once, because its path may be out of reach after a
    chroot, and again when the journal has a new one.
    """

    def __init__(
        self,
        path: Path = JOURNAL_SOCKET,
        *,
        identifier: str = "tamed",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._identifier = identifier
        self._clock = clock
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._connect()
        self._outbox = Outbox(self._transmit, self._loss_record, clock=clock)

    @property
    def waiting(self) -> bool:
        """Whether records are yet to be sent."""
        return not self._outbox.is_empty

    @property
    def lost(self) -> int:
        """The total number of dropped records."""
        return self._outbox.lost

    @property
    def trouble(self) -> str:
        """A sentence about the records that cannot be sent now; empty if there are none."""
        return self._outbox.trouble(f"the journal at {self.path}")

    def write(self, records: Sequence[Record]) -> None:
        """Send records of the log."""
        for record in records:
            origin = record.origin
            fields = {"PRIORITY": str(origin.severity), "LOGGER": origin.name, "SYSLOG_PID": str(origin.pid)}
            self.send({"MESSAGE": record.text, **fields})

    def send(self, fields: Mapping[str, str | bytes]) -> None:
        """Send a record, MESSAGE and PRIORITY for example, now or when it is possible."""
        self._outbox.put(encode_fields({"SYSLOG_IDENTIFIER": self._identifier, **fields}))

    def housekeep(self) -> None:
        """Send waiting records, as far as possible without waiting."""
        self._outbox.flush()

    def disown(self) -> None:
        """In a forked child: leave the waiting records to the parent. Both can send datagrams."""
        self._outbox = Outbox(self._transmit, self._loss_record, clock=self._clock)

    def close(self) -> None:
        """Send the records that can be sent at once, and close. Idempotent."""
        if self._socket.fileno() >= 0:
            self.housekeep()
            self._socket.close()

    def _connect(self) -> bool:
        try:
            self._socket.connect(str(self.path))
        except OSError:
            return False
        return True

    def _transmit(self, record: bytes) -> bool:
        return self._transmit_once(record) or (self._connect() and self._transmit_once(record))

    def _transmit_once(self, record: bytes) -> bool:
        try:
            self._socket.send(record)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                return self._transmit_file(record)
            return False  # the journal is not listening, or is too slow
        return True

    def _transmit_file(self, record: bytes) -> bool:
        try:
            descriptor = _sealed(record)
        except OSError:
            return False
        try:
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [passed])
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _loss_record(self, sentence: str) -> bytes:
        return encode_fields(
            {"SYSLOG_IDENTIFIER": self._identifier, "PRIORITY": _WARNING, "MESSAGE": sentence}
        )


def _sealed(data: bytes) -> int:
    """Put data into a sealed file in memory, as the journal requires."""
    descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
