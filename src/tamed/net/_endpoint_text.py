"""The parts of the texts of endpoints: hosts and ports, settings, escapes.

Pure functions. A function that refuses its argument raises ``ValueError`` with the fault and the expected
form; ``Endpoint.parse`` adds the whole text.
"""

import re
import socket
from collections.abc import Iterable

from tamed._os.text import did_you_mean

FORMS = "HOST:PORT, :PORT, [IPV6]:PORT, tcp://, tls://, unix:, fd:// or systemd://"

# RFC 1123, and underscores, which internal names often have; 63 letters in a label, 253 in all (RFC 1035).
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.|\Z))+")
_ZONE = r"[A-Za-z0-9_.-]+"


def host_and_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``, ``:PORT`` or ``[IPV6]:PORT``; the host is returned in canonical form."""
    refuse_settings(text)
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise ValueError(_without_port(text))
    host = _without_brackets(host, port)
    if not port:
        raise ValueError(_without_port(text))
    if not re.fullmatch(r"[0-9]{1,9}", port):
        raise ValueError(f"port {port!r} is not a number: expected 0 to 65535")
    return canonical_host(host), check_port(int(port))


def canonical_host(host: str) -> str:
    """Return the canonical form of a host: compressed, lower case; empty stays empty."""
    if ":" in host:
        address, percent, zone = host.partition("%")
        if not _is_address(address, socket.AF_INET6) or (percent and not re.fullmatch(_ZONE, zone)):
            raise ValueError(f"{host!r} is not an IPv6 address")
        packed = socket.inet_pton(socket.AF_INET6, address)
        return f"{socket.inet_ntop(socket.AF_INET6, packed)}{percent}{zone}"
    if re.fullmatch(r"[0-9.]+", host):
        if not _is_address(host, socket.AF_INET):
            raise ValueError(f"{host!r} is not an IPv4 address")
        return host
    if host and not (host.isascii() and _HOST_NAME.fullmatch(host.lower())):
        raise ValueError(f"{host!r} is not a host name: expected letters, digits, '-' and '.'")
    return host.lower()


def check_port(port: int) -> int:
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is out of range: expected 0 to 65535")
    return port


def authority(host: str, port: int) -> str:
    """Return a host and a port as on the command line."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def settings(query: str, kind: str, known: tuple[str, ...]) -> list[tuple[str, str]]:
    """Parse the settings after the question mark, in their order: ``NAME=VALUE&NAME=VALUE``."""
    found: list[tuple[str, str]] = []
    for item in query.split("&") if query else ():
        name, _, value = item.partition("=")
        if name not in known:
            takes = f"{kind} takes {', '.join(known)}"
            raise ValueError(f"unknown setting {name!r}{nearest(name, known)}; {takes}")
        if not value:
            raise ValueError(f"{name} has no value")
        found.append((name, unescape(value)))
    return found


def once(items: list[tuple[str, str]]) -> dict[str, str]:
    """Return settings by name, each of which may be given once."""
    found: dict[str, str] = {}
    for name, value in items:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


def refuse_settings(text: str) -> None:
    """Raise ValueError if there are settings, which this kind does not have."""
    if "?" in text:
        raise ValueError("no settings here: only tls:// and unix: take them")


def octal(text: str) -> int:
    """Parse the mode of a file."""
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise ValueError(f"mode {text!r} is not octal: expected three digits from 0 to 7, such as 660")
    return int(text, 8)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question with the nearest known word, or an empty text."""
    question = did_you_mean(word.lower(), known)
    return question and f", {question}"


def canonical_text(text: str, what: str) -> str:
    """Return a file's name, with undecodable bytes as in Python's file functions."""
    if "\0" in text:
        raise ValueError(f"{what} contains a zero byte")
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"{what} cannot be written as UTF-8") from None


def escape(text: str) -> str:
    """Write ``%XX`` for characters with a special meaning, and for all that are not ASCII."""
    from urllib.parse import quote  # lazy import: only paths are escaped

    return quote(text, safe="/:@+,=~!$'()*;", errors="surrogateescape")


def unescape(text: str) -> str:
    """Undo ``escape``."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % must be followed by two hexadecimal digits; write %25 for the sign itself")
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")


def _without_port(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,5}", text):
        return f"a port alone: expected HOST:PORT, or :{text} for every interface"
    return f"no port: expected {FORMS}"


def _without_brackets(host: str, port: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        if ":" not in host:
            raise ValueError(f"brackets are for IPv6 addresses, and {host[1:-1]!r} is not one")
        return host[1:-1]
    if host == "*":
        raise ValueError(f"every interface is written :{port or 'PORT'}")
    if ":" in host:
        raise ValueError(_unbracketed(host, port))
    return host


def _unbracketed(host: str, port: str) -> str:
    """Return the correct form of an address without brackets; in ``::1:80`` the end is probably a port."""
    for address, rest in ((host, port or "PORT"), (f"{host}:{port}", "PORT")):
        if _is_address(address.partition("%")[0], socket.AF_INET6):
            return f"an IPv6 address needs brackets: expected [{address}]:{rest}"
    return f"more than one colon: expected {FORMS}"


def _is_address(text: str, family: socket.AddressFamily) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True
