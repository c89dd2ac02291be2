"""The journal of systemd, as far as a socket that speaks for it can tell."""

import array
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.log.journal import JournalSender, encode_fields
from tamed.log.plan import is_journal
from tests.patience import PATIENCE

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)


def decode(data: bytes) -> dict[str, bytes]:
    """Read a record as the journal does."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, has_value, value = line.partition(b"=")
        if not has_value:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        fields[name.decode()] = value
    return fields


def receive(journal: socket.socket) -> dict[str, bytes]:
    """Receive a record, in a datagram or in a file."""
    data, ancillary, _, _ = journal.recvmsg(300_000, socket.CMSG_SPACE(4))
    if not ancillary:
        return decode(data)
    assert data == b""
    descriptor = array.array("i", ancillary[0][2])[0]
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        return decode(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """Return a socket that listens where the journal would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.settimeout(PATIENCE)
        yield listening


@given(st.dictionaries(NAMES, st.one_of(st.binary(), st.text(st.characters(exclude_categories=["Cs"])))))
def test_fields_come_out_as_they_went_in(fields: dict[str, str | bytes]) -> None:
    """Any value can be sent, with newlines or without."""
    expected = {name: value if isinstance(value, bytes) else value.encode() for name, value in fields.items()}
    assert decode(encode_fields(fields)) == expected


def test_two_forms() -> None:
    """A value has the short form unless it has a newline."""
    assert encode_fields({"MESSAGE": "a=b", "CODE_LINE": b"1\n2"}) == (
        b"MESSAGE=a=b\nCODE_LINE\n\x03\0\0\0\0\0\0\x001\n2\n"
    )


def test_record(journal: socket.socket, tmp_path: Path) -> None:
    """A record is one datagram, with the name of the program."""
    sender = JournalSender(tmp_path / "socket", identifier="verse")
    sender.send({"MESSAGE": "one\ntwo", "PRIORITY": "6"})
    assert receive(journal) == {"SYSLOG_IDENTIFIER": b"verse", "MESSAGE": b"one\ntwo", "PRIORITY": b"6"}
    sender.close()
    sender.close()


def test_long_record(journal: socket.socket, tmp_path: Path) -> None:
    """A record that is too long for a datagram arrives in a sealed file."""
    sender = JournalSender(tmp_path / "socket")
    text = os.urandom(1_000_000).hex()
    sender.send({"MESSAGE": text})
    assert receive(journal)["MESSAGE"] == text.encode()
    assert not sender.waiting
    sender.close()


def test_journal_that_is_away(tmp_path: Path) -> None:
    """Without a listener, records wait, long ones too, and arrive in order later."""
    sender = JournalSender(tmp_path / "socket")
    texts = ["one", "2" * 500_000, "three"]
    for text in texts:
        sender.send({"MESSAGE": text})
    assert sender.waiting
    assert f"cannot send the log to the journal at {tmp_path / 'socket'}: " in sender.trouble
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(PATIENCE)
        sender.housekeep()
        assert not sender.waiting
        assert sender.trouble == ""
        assert [receive(journal)["MESSAGE"].decode() for _ in texts] == texts
    sender.close()


def test_journal_that_is_slow(journal: socket.socket, tmp_path: Path) -> None:
    """A journal that does not read blocks no writer; the number of dropped records is logged in it."""
    sender = JournalSender(tmp_path / "socket", identifier="verse")
    while not sender.lost:
        sender.send({"MESSAGE": "x" * 10_000})
    while sender.waiting:
        receive(journal)
        sender.housekeep()
    journal.setblocking(False)
    last: dict[str, bytes] = {}
    try:
        while True:
            last = receive(journal)
    except BlockingIOError:
        pass
    assert last["MESSAGE"].startswith(b"1 line was lost between ")
    assert (last["PRIORITY"], last["SYSLOG_IDENTIFIER"]) == (b"4", b"verse")
    sender.close()


def test_a_journal_whose_path_is_out_of_reach(tmp_path: Path) -> None:
    """The sender has connected before, as after a chroot; a new socket is found by its path."""
    folder = tmp_path / "journal"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(PATIENCE)
        journal.bind(str(folder / "socket"))
        sender = JournalSender(folder / "socket")
        folder.rename(tmp_path / "elsewhere")
        sender.send({"MESSAGE": "from a cell"})
        sender.send({"MESSAGE": "x" * 1_000_000})
        assert receive(journal)["MESSAGE"] == b"from a cell"
        assert len(receive(journal)["MESSAGE"]) == 1_000_000
    folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(PATIENCE)
        journal.bind(str(folder / "socket"))
        sender.send({"MESSAGE": "again"})
        assert receive(journal)["MESSAGE"] == b"again"
    sender.close()


def test_journal_stream(tmp_path: Path) -> None:
    """A descriptor is the journal's if it is the file that systemd says, and not for the variable alone."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(environ, stream.fileno())
        assert not is_journal(environ, other.fileno())
        assert not is_journal({}, stream.fileno())
        assert not is_journal({"JOURNAL_STREAM": "nonsense"}, stream.fileno())
    assert not is_journal(environ, 987654)
