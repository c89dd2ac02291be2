"""Messages for syslog, and where they go."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.log.plan import parse_address
from tamed.log.syslog import MAX_MESSAGE, SyslogMessage, classical, rfc5424

MOMENT = 1_700_000_000.123456
MESSAGE = SyslogMessage(3, MOMENT, "verse", "123", "the poem is missing\nat line 1")

# RFC 5424, section 6: the header in its own grammar.
HEADER = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) - - "
)


def test_rfc5424() -> None:
    """A message has the header of RFC 5424, in universal time, and its text with all its lines."""
    assert rfc5424(MESSAGE, "host.example") == (
        b"<27>1 2023-11-14T22:13:20.123456Z host.example verse 123 - - the poem is missing\nat line 1"
    )


def test_classical() -> None:
    """For the daemon of this machine a message is as the C library writes it: local time, in English."""
    local = time.localtime(MOMENT)
    clock = time.strftime("%H:%M:%S", local)
    expected = f"<27>Nov {local.tm_mday:2} {clock} verse[123]: the poem is missing\nat line 1"
    assert classical(MESSAGE) == expected.encode()


@given(
    st.integers(0, 23),
    st.integers(0, 7),
    st.floats(0, 4e9),
    st.lists(st.text(max_size=300), min_size=3, max_size=3),
    st.text(max_size=300),
)
def test_header_is_valid(facility: int, severity: int, moment: float, names: list[str], text: str) -> None:
    """Whatever names contain, the header is a valid one, and the text follows it unchanged."""
    host, app, pid = names
    data = rfc5424(SyslogMessage(severity, moment, app, pid, text, facility), host)
    header = HEADER.match(data)
    assert header
    assert int(header[1]) == facility * 8 + severity
    assert data[header.end() :] == text.encode(errors="backslashreplace")


def test_microseconds_are_rounded_with_their_second() -> None:
    """A time just before a second is not written as a million microseconds."""
    assert b"T22:13:21.000000Z" in rfc5424(MESSAGE._replace(time=1_700_000_000.9999999), "host")


@given(st.integers(0, 4))
def test_long_message_is_cut(offset: int) -> None:
    """A message is not longer than what daemons take; it is cut between characters, and says so."""
    for data in (
        rfc5424(MESSAGE._replace(text="x" * offset + "😀" * 5000), "host"),
        classical(MESSAGE._replace(text="x" * offset + "😀" * 5000)),
    ):
        assert MAX_MESSAGE - 4 < len(data) <= MAX_MESSAGE
        assert data.decode().endswith("😀 [...]")


@pytest.mark.parametrize(("text", "path"), [("", "/dev/log"), ("unix:/run/log", "/run/log")])
def test_address(text: str, path: str) -> None:
    """Without an address messages go where the C library sends them."""
    assert parse_address(text) == Path(path)


@pytest.mark.parametrize(
    "text", ["loghost", "/dev/log", "unix:", "unix:log", "udp://loghost", "tcp://[::1]:601"]
)
def test_bad_address(text: str) -> None:
    """An invalid address of a syslog socket is refused; the message shows a valid form."""
    with pytest.raises(ValueError, match=r"expected unix:/path, a socket of this machine$"):
        parse_address(text)
