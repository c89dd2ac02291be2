"""The function that parses messages of other processes, and invalid input."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import ConfigurationError, SystemRefused
from tamed.ipc.handoff import HandoffState
from tamed.ipc.message import (
    LONGEST,
    InvalidMessage,
    Message,
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
from tests.runner.world import a_plan, a_pool, supervised

BAD = [
    b"",
    b"hello",
    b"[]",
    b"1",
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"{" * 3000,
    b"[" * 3000,
    b"[" * 100_000,
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b'{"leaving": ' + b"9" * 401 + b"}",
    b'{"leaving": ' + b"9" * 100_000 + b"}",
    b'{"leaving": 9223372036854775808}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 1e400}',
    b'{"a": "' + b"\\" * 99_999,
    b'"' + b'\\"' * 100_000,
    b'{"a": "' + b"x" * LONGEST + b'"}',
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: f"{bytes(data[:20])!r}-{len(data)}")
def test_what_is_no_message_is_one_error(data: bytes) -> None:
    """Invalid data raises InvalidMessage."""
    with pytest.raises(InvalidMessage):
        parse_message(data)


def test_brackets_in_texts_are_no_depth() -> None:
    """Many objects side by side are not deep either."""
    messages: list[Message] = [{"text": '[{"' * 1000}, {"many": [[]] * 100_000}]
    for message in messages:
        assert parse_message(encode_message(message)) == message


def test_what_is_as_deep_as_may_be_is_read() -> None:
    """One level more than the limit is refused."""
    assert parse_message(b'{"a":' * 128 + b"1" + b"}" * 128)
    with pytest.raises(InvalidMessage, match="deeper than 128"):
        parse_message(b'{"a":' * 129 + b"1" + b"}" * 129)


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_an_error(data: bytes) -> None:
    """Any bytes are parsed or raise InvalidMessage."""
    with suppress(InvalidMessage):
        assert isinstance(parse_message(data), dict)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 2**31, 2**63, -(2**63) - 1, 10**400, 256])
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "x" * 3000, "prepared", "tcp:1", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["listen", "kind", "index", "number", "state", "fault", "lines", "status", "leaving", "shut", "files"]
KEYS += [
    "recycle",
    "report",
    "tree",
    "children",
    "connections",
    "heartbeat",
    "loaded",
    "forked",
    "plan",
    "notes",
]
KEYS += ["ready", "changed", "seen", "command", "workers", "descriptors", "answer", "name", "restarts"]
MESSAGES = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), VALUES, max_size=5)


@given(MESSAGES)
def test_a_message_is_read_as_it_was_sent_or_refused(message: Message) -> None:
    """A message that was encoded within the limits is parsed unchanged."""
    try:
        line = encode_message(message)
    except InvalidMessage:
        return
    with suppress(InvalidMessage):  # an integer of more than 64 bits
        assert parse_message(line) == message


READERS: list[Callable[[Message, str], object]] = [
    read_number,
    read_object,
    read_seconds,
    read_text,
    read_texts,
    read_truth,
    lambda message, _: read_fault(message),
    lambda message, _: read_report(message),
    lambda message, _: Plan.from_text(json.dumps(message)),
    lambda message, _: Plan.from_text(json.dumps({**json.loads(a_plan().to_text()), **message})),
]


@given(MESSAGES, st.sampled_from(KEYS), st.sampled_from(READERS))
def test_a_field_is_of_its_type_or_an_error(
    message: Message, key: str, reader: Callable[[Message, str], object]
) -> None:
    """Each reader returns its type or raises InvalidMessage."""
    with suppress(InvalidMessage):
        reader(message, key)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 2**31, [1]])
def test_a_whole_number_is_nothing_else(value: Any) -> None:
    """Booleans and floats are refused."""
    with pytest.raises(InvalidMessage, match="a: expected a whole number from 0 to 2147483647"):
        read_number({"a": value}, "a")


def test_a_fault_has_a_line() -> None:
    """A fault without lines is refused: the last line is shown to people."""
    with pytest.raises(InvalidMessage, match="one at least"):
        read_fault({"fault": {"lines": [], "status": 1}})


def sendable(message: Message) -> bytes:
    """Return a line as a program without limits would write it."""
    return json.dumps(message).encode() + b"\n"


@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_a_worker_may_say_anything(messages: list[Message]) -> None:
    """The worker's message is handled, or the worker is ended; the supervisor goes on."""
    with a_pool() as (world, pool):
        pool.spawn(world.generation, 1)
        world.hands[0].channel._sock.send(b"".join(map(sendable, messages)))
        world.reactor.turn(0)
        (worker,) = pool.workers.values()
        ended = world.platform.sent == [(101, "kill")]
        assert ended == worker.peer.channel.closed
        assert worker.leaving is None or 0 <= worker.leaving <= 255


@given(MESSAGES)
def test_a_helper_may_answer_anything(message: Message) -> None:
    """The reload fails with a line, or goes on."""
    with supervised() as world:
        world.start()
        world.supervisor.operations.reload()
        helper = world.platform.helpers[0]
        helper.channel._sock.send(sendable(message))
        world.reactor.turn(0)
        world.ends(helper, 0)
        assert not world.supervisor.is_reloading or len(world.hands) > 2


@given(MESSAGES)
def test_what_a_program_leaves_is_known_or_refused(message: Message) -> None:
    """An unknown version raises an error with a remedy."""
    state = HandoffState()
    state.data = message
    try:
        descriptor = state.hand_over()
    except SystemRefused:  # there is no JSON for it
        return
    with pytest.raises(ConfigurationError, match="cannot take over"):
        HandoffState.take_over(descriptor)
