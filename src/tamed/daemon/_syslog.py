"""Log lines as syslog messages: the two formats.

RFC 5424 is the standard and goes over the network and to every syslog daemon. The journal of systemd, which
often listens at ``/dev/log`` in a syslog daemon's place, does not know it, and would show its header as
text; it gets the classical form that the C library's ``syslog`` writes (RFC 3164, 4.1, without the host's
name). See ``_syslogsender`` for who gets which.
"""

import time
from typing import NamedTuple

__all__ = ["MAX_MESSAGE", "SyslogMessage", "classical", "rfc5424"]

MAX_MESSAGE = 8192  # bytes: what rsyslog and syslog-ng take unless told otherwise; RFC 5424 demands 2048
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_CUT = b" [...]"


class SyslogMessage(NamedTuple):
    """One message. ``severity`` is 0 to 7, ``facility`` 0 to 23, ``time`` in seconds since the epoch.

    ``text`` may have several lines, which stay one message.
    """

    severity: int
    time: float
    app: str
    pid: str
    text: str
    facility: int = 3  # system daemons


def rfc5424(message: SyslogMessage, host: str) -> bytes:
    """Write a message as RFC 5424, section 6, has it.

    The text is UTF-8 without a byte order mark: the RFC wants one, and most receivers would show it.
    """
    whole, fraction = divmod(round(message.time * 1_000_000), 1_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    names = f"{_name(host, 255)} {_name(message.app, 48)} {_name(message.pid, 128)}"
    return _fit(f"<{_priority(message)}>1 {moment}.{fraction:06}Z {names} - - ", message.text)


def classical(message: SyslogMessage) -> bytes:
    """Write a message as the C library does, for a daemon on this machine."""
    moment = time.localtime(message.time)
    clock = time.strftime("%H:%M:%S", moment)
    day = f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2}"  # in English, whatever the locale
    return _fit(
        f"<{_priority(message)}>{day} {clock} {_name(message.app, 48)}[{_name(message.pid, 128)}]: ",
        message.text,
    )


def _priority(message: SyslogMessage) -> int:
    return message.facility * 8 + message.severity


def _name(text: str, most: int) -> str:
    """Make a field of the header: printable ASCII without spaces; ``-`` stands for none (RFC 5424, 6.2)."""
    kept = "".join(one if "!" <= one <= "~" else "_" for one in text)
    return kept[:most] or "-"


def _fit(header: str, text: str) -> bytes:
    data = header.encode() + text.encode(errors="backslashreplace")
    return data if len(data) <= MAX_MESSAGE else shortened(data, MAX_MESSAGE)


def shortened(data: bytes, most: int) -> bytes:
    """Cut a message, not within a character of UTF-8, and say so at its end."""
    return data[: most - len(_CUT)].decode(errors="ignore").encode() + _CUT
