"""Targets: what processes tell each other. An application can write there, and so can others of its user."""

import os
import socket
from contextlib import closing
from typing import Final

from tamed.daemon import Damage, LineReader, Record, RecordReader, SyslogMessage, encode_record
from tamed.daemon._syslog import classical, rfc5424
from tamed.runner._channel import Channel
from tamed.runner._layout import Line, bare, coloured, human, json, plain
from tamed.runner._message import (
    InvalidMessage,
    encode_message,
    parse_message,
    read_fault,
    read_number,
    read_object,
    read_seconds,
    read_text,
    read_texts,
    read_truth,
)
from tamed.runner._plan import Plan
from tamed.runner._worker_report import read_report
from tests.fuzz.engine import Target

__all__ = ["TARGETS"]

_READERS: Final = (read_fault, read_report)
_FIELDS: Final = (read_number, read_object, read_seconds, read_text, read_texts, read_truth)
_JSON: Final = (
    b'{"',
    b'":',
    b"[",
    b"]",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"NaN",
    b"\\u0000",
    b"\\ud800",
    b'"descriptors":1',
    b'"tree":',
    b'"children":[]',
    b'"fault":',
    b'"lines":["a"]',
    b'"status":70',
)
_TREE: Final = (
    b'{"connections":3,"accepted":7,"tree":{"name":"app","state":"running","restarts":0,"summary":"",'
    b'"children":[{"name":"server","state":"running","restarts":1,"summary":"x","children":[]}]}}'
)
_CORPUS: Final = (
    b'{"request":"status","progress":true}',
    b'{"type":"ready"}',
    b'{"beat":12.5}',
    b'{"fault":{"lines":["tamed: it failed"],"status":70}}',
    b'{"listen":"localhost:0","kind":"stream","count":0,"descriptors":0}',
    _TREE,
)
_PLAN: Final = Plan("app", {}, ["python3"]).to_text().encode()
_WRITTEN: Final = 64 * 1024
_TERMINAL: Final = frozenset(map(chr, (*range(9), *range(11, 32), *range(127, 160)))) - {"\t"}


def _message(data: bytes) -> object:
    """A message that was read can be written, and is the same when it is read again; so can its fields."""
    message = parse_message(data)
    assert parse_message(encode_message(message)) == message
    for read in _READERS:
        try:
            read(message)
        except InvalidMessage:
            continue
    for key in message:
        for field in _FIELDS:
            try:
                field(message, key)
            except InvalidMessage:
                continue
    return tuple(message)[:3]


def _plan(data: bytes) -> object:
    plan = Plan.from_text(data.decode("utf-8", "surrogateescape"))
    assert Plan.from_text(plan.to_text()).to_text() == plan.to_text()
    return None


def _channel(data: bytes) -> object:
    """Lines are messages, or the channel is given up; none has descriptors that did not come."""
    ours, theirs = socket.socketpair()
    with closing(Channel(ours)) as channel, theirs:
        theirs.send(data[:_WRITTEN])
        theirs.shutdown(socket.SHUT_WR)
        count = 0
        for _, descriptors in channel.receive():
            assert descriptors == []
            count += 1
        assert channel.closed
        return count


def _records(data: bytes) -> object:
    """However it comes in pieces, each record is found, and each can be written in any form of log."""
    whole, pieces = RecordReader(), RecordReader()
    found = whole.feed(data)
    half = len(data) // 2
    in_pieces = [*pieces.feed(data[:half]), *pieces.feed(data[half:])]
    assert _of(found) == _of(in_pieces)
    assert len(whole.rest) <= len(data)
    for record in _of(found):
        origin = record.origin
        message = SyslogMessage(
            origin.severity, origin.time, "app", str(origin.pid), record.text.decode(errors="replace")
        )
        rfc5424(message, "host")
        classical(message)
        again = RecordReader().feed(encode_record(record))
        assert again == [record]
    return len(found), len(_of(found))


def _of(found: "list[Record | Damage]") -> list[Record]:
    return [each for each in found if isinstance(each, Record)]


def _output(data: bytes) -> object:
    """What a worker prints comes out as lines, of which none is long and nothing is lost."""
    reader = LineReader()
    half = len(data) // 3
    reader.feed(data[:half], 0.0)
    reader.feed(data[half:], 0.01)
    lines = [*reader.take(0.2), *reader.finish()]
    assert all(len(line) <= 17 * 1024 for line in lines)
    assert reader.rest == b""
    kept = b"".join(line.removesuffix(b" [...]") for line in lines)
    assert len(kept) >= len(data.replace(b"\n", b"").replace(b"\r", b"").replace(b" [...]", b""))
    return len(lines)


def _laid_out(data: bytes) -> object:
    """Whatever a record says, its line does nothing to a terminal, and looks like no other record."""
    text = data.decode("utf-8", "backslashreplace")
    name, _, message = text.partition("\n")
    line = Line(1_800_000_000.0, "INFO", name, message, os.getpid(), traceback=text)
    for layout in (human, plain):
        laid = layout(line)
        assert _TERMINAL.isdisjoint(laid)
        assert all(each.startswith("    ") for each in laid.split("\n")[1:])
    assert "\n" not in json(line)
    assert _TERMINAL.isdisjoint(json(line))
    assert _TERMINAL.isdisjoint(bare(line))
    coloured(line)
    return None


TARGETS: Final = (
    Target("message", _message, _CORPUS, _JSON, (InvalidMessage,)),
    Target("plan", _plan, (_PLAN, b"{}"), _JSON, (InvalidMessage,), weight=0.3),
    Target(
        "channel",
        _channel,
        tuple(each + b"\n" for each in _CORPUS),
        (*_JSON, b"\n"),
        (InvalidMessage,),
        weight=0.7,
    ),
    Target(
        "log records",
        _records,
        (
            b"\xff6 1800000000000000 123 app\xfea message\xfd",
            b"\xff3 -62135596800000000 1 a.b\xfeTraceback\n  line\xfd\xff4 0 1 \xfe\xfd",
        ),
        (b"\xff", b"\xfe", b"\xfd", b"6 ", b"-99999999999999999", b"99999999999999999", b" 1 "),
    ),
    Target(
        "output",
        _output,
        (b"one line\nand another\r\n", b"Traceback\n  File\n", b"x" * 20_000),
        (b"\n", b"\r\n", b" [...]"),
    ),
    Target(
        "log line",
        _laid_out,
        (b"app\nGET /index.html", b"app\n\x1b[31mred\x07", b"a\nb\nc"),
        (b"\x1b]0;", b"\n", b"\xc2\x85", b"\xe2\x80\xa8"),
    ),
)
