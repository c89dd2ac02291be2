r"""The journal of systemd, in its own protocol: fields, and not lines of text.

A record is one datagram to ``/run/systemd/journal/socket`` (systemd, "Native Journal Protocol"). A field is
``NAME=value\n``, or, where the value has a newline in it, ``NAME\n``, its length in 64 bits, little-endian,
the value and ``\n``. A record that is too long for a datagram goes into a sealed file in memory
(memfd_create(2)) whose descriptor is sent.
"""

import array
import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tamed.log.outbox import Outbox

__all__ = ["JOURNAL_SOCKET", "JournalSender", "encode_fields", "is_journal"]

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_WARNING = "4"


def is_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Tell whether a descriptor is connected to the journal.

    systemd says in ``JOURNAL_STREAM`` which file it gave (systemd.exec(5)). A child inherits the variable
    and may have been given another file, so the two are compared.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encode_fields(fields: Mapping[str, str | bytes]) -> bytes:
    """Write a record. A name that is not capitals, digits and underscores raises ValueError."""
    encoded = []
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: expected the name of a journal field, such as CODE_LINE")
        data = value if isinstance(value, bytes) else value.encode(errors="backslashreplace")
        if b"\n" in data:
            encoded.append(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            encoded.append(b"%b=%b\n" % (name.encode(), data))
    return b"".join(encoded)


class JournalSender:
    """Sends records to the journal. Only a field with a senseless name raises, and nothing waits.

    While `waiting` is true, call `housekeep` about once a second. What the journal does not take is
    kept, up to 1 MiB; beyond that it is dropped and counted, and told in the journal when it takes records
    again. The socket needs no connection, but its path must be reachable: not after a chroot.
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
        self._outbox = Outbox(self._transmit, self._note, clock=clock)

    @property
    def waiting(self) -> bool:
        """Whether something is yet to be sent."""
        return not self._outbox.is_empty

    @property
    def lost(self) -> int:
        """How many records were dropped in all."""
        return self._outbox.lost

    def send(self, fields: Mapping[str, str | bytes]) -> None:
        """Send a record, MESSAGE and PRIORITY for example, now or when it is possible.

        Raises ValueError for the name of a field.
        """
        self._outbox.put(encode_fields({"SYSLOG_IDENTIFIER": self._identifier, **fields}))

    def housekeep(self) -> None:
        """Send what waits, as far as that is possible now."""
        self._outbox.flush()

    def disown(self) -> None:
        """Leave what waits to the parent, in a forked child. Datagrams can be sent by both."""
        self._outbox = Outbox(self._transmit, self._note, clock=self._clock)

    def close(self) -> None:
        """Send what can be sent at once, and close. May be called again."""
        if self._socket.fileno() >= 0:
            self.housekeep()
            self._socket.close()

    def _transmit(self, record: bytes) -> bool:
        try:
            self._socket.sendto(record, str(self.path))
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                return self._transmit_file(record)
            return False  # nobody listens, or not fast enough
        return True

    def _transmit_file(self, record: bytes) -> bool:
        try:
            descriptor = _sealed(record)
        except OSError:
            return False
        try:
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [passed], 0, str(self.path))
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _note(self, sentence: str) -> bytes:
        return encode_fields(
            {"SYSLOG_IDENTIFIER": self._identifier, "PRIORITY": _WARNING, "MESSAGE": sentence}
        )


def _sealed(data: bytes) -> int:
    """Put data into a file in memory that nobody can change any more, as the journal demands."""
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
