"""What a client of the web server may send, and how long it may take."""

from dataclasses import dataclass

__all__ = ["HttpLimits"]


@dataclass(frozen=True)
class HttpLimits:
    """Limits of an HTTP connection, in bytes and seconds."""

    request_line: int = 8 * 1024
    """The longest target of a request; a longer one is answered with 414."""
    head: int = 32 * 1024
    """All headers of a request together, and input without progress in its body; 431 beyond."""
    head_timeout: float = 10.0
    """From the connection, or the first byte of another request, to the end of the headers."""
    keep_alive: float = 5.0
    """From an answer to the next request on its connection."""
    stall: float = 60.0
    """For the client to go on sending the body, or taking the answer."""
