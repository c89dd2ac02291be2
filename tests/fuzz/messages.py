"""Targets: what processes tell each other. An application can write there, and so can others of its user."""

import socket
from contextlib import closing
from typing import Final

from tamed.ipc.channel import Channel
from tamed.ipc.message import (
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
from tamed.supervisor.plan import Plan
from tamed.supervisor.reports import read_report
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
    b'{"heartbeat":12.5}',
    b'{"checks":[{"name":"db","gates":true,"why":"down"}]}',
    b'{"fault":{"lines":["tamed: it failed"],"status":70}}',
    b'{"listen":"localhost:0","kind":"stream","count":0,"descriptors":0}',
    _TREE,
)
_PLAN: Final = Plan("app", {}, ["python3"]).to_text().encode()
_WRITTEN: Final = 64 * 1024


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
)
