"""The library `h2` with our limits, and checks of a client's frames before it parses them.

The library parses complete frames, and accepts any number of them. Each known HTTP/2 flood consists of frames
that cost the client little and the server more: streams that are reset at once (CVE-2023-44487), pings,
settings, empty data, priorities, endless header blocks. They are counted here before they are parsed.

The library also treats a client's GOAWAY as the end of the connection, and sends nothing after it. But the
client still waits for its requests (RFC 9113, 6.8), so that frame is not passed to the library.
"""

import logging
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

from tamed.web._negotiation import PREFACE
from tamed.web.limits import Http2Limits, HttpLimits

__all__ = ["FrameGuard", "TooMuch", "begun_connection"]

_header_log = logging.getLogger("hpack")
if _header_log.level == logging.NOTSET:
    _header_log.setLevel(logging.INFO)  # at DEBUG, the library logs each header, including cookies and tokens

_BEFORE_SETTINGS: Final = 1000
"""Streams beyond the announced limit that are refused one by one."""

_HEAD: Final = 9
_DATA, _HEADERS, _RESET, _GOAWAY, _CONTINUATION = 0, 1, 3, 7, 9
_OTHER = -1
_SHORTEST_GOAWAY: Final = 8

_LONGEST: Final = 16 * 1024
"""Bytes of a frame (RFC 9113, 4.2). The library reads a longer one to its end before it refuses it."""
_END_STREAM, _END_HEADERS = 1, 4

_MOST: Final = 2000
_A_SECOND: Final = 200
"""A connection's budget for frames without payload, and its refill each second."""

_FOR_DATA: Final = 4
"""The budget that a data frame earns, in either direction: a client may answer it with window updates."""

_FOR_RESET: Final = 5
"""The cost of a reset stream, which has begun a request."""


def begun_connection(limits: Http2Limits, http: HttpLimits) -> H2Connection:
    """Return the state of a new connection, which has the settings for the client to send."""
    header_list = http.head + http.request_line
    settings = {
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
        SettingCodes.INITIAL_WINDOW_SIZE: limits.window,
        SettingCodes.MAX_HEADER_LIST_SIZE: header_list,
    }
    protocol = H2Connection(
        H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    protocol.local_settings = Settings(client=False, initial_values=settings)
    protocol.decoder.max_header_list_size = 2 * header_list  # a request with a size in between is refused
    protocol.initiate_connection()
    # The library ends a connection with too many streams, but a client may not have read the limit yet.
    settings[SettingCodes.MAX_CONCURRENT_STREAMS] += _BEFORE_SETTINGS
    protocol.local_settings = Settings(client=False, initial_values=settings)
    protocol.increment_flow_control_window(limits.connection_window - protocol.inbound_flow_control_window)
    return protocol


class TooMuch(Exception):
    """A client exceeds a limit."""

    def __init__(self, why: str, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
        super().__init__(why)
        self.code = code
        """The error code for the client (RFC 9113, 7)."""


class FrameGuard:
    """Follows the frames of one connection from its preface on, and limits those without payload.

    ``header_block`` is the size of the largest block of headers, compressed, in bytes.
    """

    def __init__(self, header_block: int, now: float) -> None:
        self.stream = 0
        """The stream with an incomplete data frame; 0 for none."""
        self.goes_away = False
        """Whether the client has sent GOAWAY."""
        self._most_headers = header_block
        self._budget = float(_MOST)
        self._since = now
        self._head = b""  # the received part of a frame header
        self._left = len(PREFACE)  # remaining bytes of the frame
        self._kind = _OTHER
        self._block = -1  # bytes of the header block so far; -1 between blocks

    @property
    def owes(self) -> bool:
        """Whether a frame other than data, or a block of headers, is incomplete."""
        return self._block >= 0 or bool(self._head) or (self._left > 0 and self._kind != _DATA)

    def take(self, data: bytes, now: float) -> bytes:
        """Follow received data, and return the part to parse. Raises TooMuch."""
        self._budget = min(float(_MOST), self._budget + (now - self._since) * _A_SECOND)
        self._since = now
        if self._head:
            data, self._head = self._head + data, b""
        kept: list[bytes] = []
        at = begin = 0
        size = len(data)
        while at < size:
            end = at
            if not self._left:
                if size - at < _HEAD:
                    self._head = data[at:]
                    break
                end += _HEAD
                self._begin(data[at:end])
            taken = min(self._left, size - end)
            self._left -= taken
            end += taken
            if self._kind == _GOAWAY:
                kept.append(data[begin:at])
                begin = end
            at = end
        self.stream = self.stream if self._left and self._kind == _DATA else 0
        return b"".join((*kept, data[begin:at])) if kept else data[:at]

    def earn(self, frames: int) -> None:
        """Count data frames that were sent to the client."""
        self._budget += _FOR_DATA * frames

    def charge_reset(self) -> None:
        """Count a request that was refused. Raises TooMuch."""
        self._charge(_FOR_RESET)

    def _begin(self, head: bytes) -> None:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        self._left, self._kind = length, kind
        if length > _LONGEST:
            raise TooMuch("a frame is too long", ErrorCodes.FRAME_SIZE_ERROR)
        if kind == _DATA:
            self.stream = stream
            if length:
                self._budget += _FOR_DATA
            elif not flags & _END_STREAM:
                self._charge(1)
        elif kind in (_HEADERS, _CONTINUATION):
            self._add_headers(kind, length, ends=bool(flags & _END_HEADERS))
        elif kind == _GOAWAY and self._is_goaway(stream, length):
            self.goes_away = True
        else:
            self._kind = _OTHER
            self._charge(_FOR_RESET if kind == _RESET else 1)

    def _is_goaway(self, stream: int, length: int) -> bool:
        """Return whether this is a valid GOAWAY; the library ends the connection for an invalid one."""
        return stream == 0 and self._block < 0 and length >= _SHORTEST_GOAWAY

    def _add_headers(self, kind: int, length: int, *, ends: bool) -> None:
        if kind == _CONTINUATION:
            self._charge(1)
        self._block = max(0, self._block) + length
        if self._block > self._most_headers:
            raise TooMuch("its headers are too large")
        if ends:
            self._block = -1

    def _charge(self, cost: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise TooMuch("it sends too many frames without payload")
