"""What a client of the web server may send, and how long it may take."""

from dataclasses import dataclass

__all__ = ["Http2Limits", "HttpLimits", "WebSocketLimits"]


@dataclass(frozen=True)
class HttpLimits:
    """Limits of an HTTP connection and its requests, in bytes and seconds."""

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


@dataclass(frozen=True)
class Http2Limits:
    """Limits of an HTTP/2 connection, beside those of `HttpLimits`, which hold for each of its streams."""

    streams: int = 100
    """Requests that may be open at a time; more are refused, and the client may repeat them."""
    window: int = 256 * 1024
    """Bytes of a request's body that the client may send before the application takes any."""
    connection_window: int = 1024 * 1024
    """The same for all requests of a connection together."""


@dataclass(frozen=True)
class WebSocketLimits:
    """Limits of a WebSocket, in bytes and seconds."""

    message: int = 1024 * 1024
    """The longest message, decompressed; the connection of a longer one is closed with code 1009."""
    frame: int = 1024 * 1024
    """The longest frame of a message, decompressed; closed in the same way."""
    queue: int = 16
    """Messages that may wait for the application, while they have less than ``message`` bytes together."""
    ping_interval: float = 20.0
    """From one ping to the next."""
    pong_timeout: float = 20.0
    """From a ping until anything comes; then the connection is closed with code 1011."""
    close_timeout: float = 10.0
    """From a close frame to the end of the connection, which is cut then."""
    compression: bool = True
    """Whether messages are compressed (permessage-deflate, RFC 7692), with windows of 4 KiB."""
