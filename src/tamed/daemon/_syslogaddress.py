"""Where syslog listens, as an operator writes it."""

from typing import NamedTuple, Self

__all__ = ["SyslogAddress"]

_LOCAL = "/dev/log"
_PORT = "514"
_EXPECTED = "expected unix:/path, udp://HOST:PORT or tcp://HOST:PORT"


class SyslogAddress(NamedTuple):
    """A socket file of this machine, or a host and port for UDP or TCP."""

    kind: str  # unix, udp or tcp
    host: str  # for unix the path
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``unix:/dev/log``, ``udp://HOST[:PORT]`` or ``tcp://HOST[:PORT]``; no text is the local one.

        The port is 514 unless it is given. Raises ValueError, which says what was expected.
        """
        if not text:
            return cls("unix", _LOCAL)
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls(kind, rest)
        if kind in ("udp", "tcp") and rest.startswith("//"):
            host, port = _split(rest[2:])
            if host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
                return cls(kind, host, int(port))
        raise ValueError(f"{text!r}: {_EXPECTED}")

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}"


def _split(text: str) -> tuple[str, str]:
    """Split a host from its port; an IPv6 address stands in brackets. No host means it is neither."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return "", ""
        return host, port[1:] or _PORT
    host, _, port = text.partition(":")
    return host, port or _PORT
