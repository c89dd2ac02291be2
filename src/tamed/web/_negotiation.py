"""Choosing a connection's version of HTTP: by ALPN over TLS, otherwise by the first bytes."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from tamed.net.proxy_header import IpEnds
from tamed.web._http1 import HttpConnection
from tamed.web._http2 import Http2Connection
from tamed.web._http2_frames import PREFACE

__all__ = ["ALPN", "Negotiation"]

ALPN: Final = ("h2", "http/1.1")
"""The protocols that a server of both offers over TLS (RFC 7301), the best first."""


class Negotiation(asyncio.Protocol):
    """Hands a connection over to the client's protocol.

    Over TLS it was negotiated. In clear text a client uses HTTP/2 by prior knowledge, and begins with its
    preface (RFC 9113, 3.3). Until that is known, the connection behaves as HTTP/1.1, with its deadlines and
    its end during a drain.
    """

    def __init__(
        self,
        http1: Callable[..., HttpConnection],
        http2: Callable[..., Http2Connection],
        *,
        ends: IpEnds | None = None,
    ) -> None:
        self._make_http2 = partial(http2, ends=ends)
        self._http1 = http1(ends=ends)
        self._begun = b""
        self._is_draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose the negotiated protocol, or wait for the first bytes."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            self._http1.connection_made(transport)
        elif tls.selected_alpn_protocol() == "h2":
            self._become_http2()
        else:
            self._http1.connection_made(transport)
            self._transport.set_protocol(self._http1)

    def data_received(self, data: bytes) -> None:
        """Choose a protocol by the first bytes."""
        self._begun += data
        if self._begun.startswith(PREFACE):
            self._http1.connection_lost(None)  # releases it: it gets no connection
            self._become_http2()
            self._transport.get_protocol().data_received(self._begun)  # type: ignore[attr-defined]
        elif not PREFACE.startswith(self._begun):
            self._transport.set_protocol(self._http1)
            self._http1.data_received(self._begun)

    def connection_draining(self) -> None:
        """Wait briefly for the client's first request; the server calls this when it begins to stop."""
        self._is_draining = True
        self._http1.connection_draining()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        self._http1.connection_lost(exc)

    def _become_http2(self) -> None:
        made = self._make_http2()
        self._transport.set_protocol(made)
        made.connection_made(self._transport)
        if self._is_draining:
            made.connection_draining()
