"""Limits and timeouts for clients of the web server."""

from dataclasses import dataclass

__all__ = ["Http2Limits", "HttpLimits", "WebSocketLimits"]


@dataclass(frozen=True)
class HttpLimits:
    """Limits of an HTTP connection and its requests, in bytes and seconds."""

    request_line: int = 8 * 1024
    """Maximum length of a request target; a longer one is answered with 414."""
    head: int = 32 * 1024
    """Maximum size of a request's headers together, and of unparsable input in its body; 431 beyond."""
    head_timeout: float = 10.0
    """Timeout from the connection, or the first byte of a later request, to the end of the headers."""
    keep_alive: float = 5.0
    """Timeout from an answer to the next request on its connection."""
    stall: float = 60.0
    """Timeout without progress while the client sends the body or reads the answer."""


@dataclass(frozen=True)
class Http2Limits:
    """Limits of an HTTP/2 connection, besides those of `HttpLimits`, which apply to each stream."""

    streams: int = 100
    """Maximum number of concurrent requests; more are refused, and the client may repeat them."""
    window: int = 256 * 1024
    """Bytes of a request's body that the client may send before the application reads any."""
    connection_window: int = 1024 * 1024
    """The same for all requests of a connection together."""


@dataclass(frozen=True)
class WebSocketLimits:
    """Limits of a WebSocket, in bytes and seconds."""

    message: int = 1024 * 1024
    """Maximum size of a message, decompressed; for a longer one the connection is closed with code 1009."""
    frame: int = 1024 * 1024
    """Maximum size of a frame of a message, decompressed; closed in the same way."""
    queue: int = 16
    """Maximum number of queued messages for the application, with less than ``message`` bytes together."""
    ping_interval: float = 20.0
    """Interval between two pings."""
    pong_timeout: float = 20.0
    """Timeout from a ping to any data; then the connection is closed with code 1011."""
    close_timeout: float = 10.0
    """Timeout from a close frame to the end of the connection, which is then aborted."""
    compression: bool = True
    """Whether messages are compressed (permessage-deflate, RFC 7692), with windows of 4 KiB."""
