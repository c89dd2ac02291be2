"""Messages for syslog, and where they go."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.log.syslog import MAX_MESSAGE, SyslogAddress, SyslogMessage, classical, rfc5424

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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("unix", "/dev/log", 0)),
        ("unix:/run/log", ("unix", "/run/log", 0)),
        ("udp://loghost", ("udp", "loghost", 514)),
        ("udp://127.0.0.1:5514", ("udp", "127.0.0.1", 5514)),
        ("tcp://[::1]:601", ("tcp", "::1", 601)),
        ("tcp://[::1]", ("tcp", "::1", 514)),
    ],
)
def test_address(text: str, address: tuple[str, str, int]) -> None:
    """Addresses are read, and written so that they can be read again."""
    read = SyslogAddress.parse(text)
    assert read == address
    assert SyslogAddress.parse(str(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "loghost",
        "unix:",
        "unix:log",
        "udp:loghost",
        "udp://",
        "udp://:514",
        "tcp://a:b",
        "tcp://a:0",
        "tcp://a:65536",
        "tcp://[::1",
        "tcp://[::1]x",
        "http://a:1",
        "tcp://a:٣",
    ],
)
def test_bad_address(text: str) -> None:
    """What is no address is refused, with what was expected."""
    with pytest.raises(ValueError, match=r"expected unix:/path, udp://HOST:PORT or tcp://HOST:PORT$"):
        SyslogAddress.parse(text)
