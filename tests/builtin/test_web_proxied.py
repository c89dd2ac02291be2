"""Connections whose client a PROXY header names."""

import socket
from types import ModuleType
from typing import Any

import pytest

from tamed.builtin.web import Options
from tamed.net.endpoint import Endpoint
from tamed.net.proxy_header import IpEnd, IpEnds, Network, UnixEnds, encode_v1, encode_v2
from tamed.plugins.values import Duration
from tests.builtin.http2_client import Http2Client
from tests.builtin.test_web import echo, module, raw, served
from tests.builtin.test_web_leaving import connections, until
from tests.patience import PATIENCE

__all__ = ["module"]  # a fixture

GET = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n"
ENDS = IpEnds(IpEnd("192.0.2.7", 40000), IpEnd("192.0.2.1", 80))


def options(*networks: str, **more: Any) -> dict[str, Any]:
    """Return those that serve the module's application behind proxies."""
    return {"app": "web_test_app:app", "proxy_from": [Network.parse(each) for each in networks], **more}


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("header", "client"),
    [
        (encode_v1(ENDS), "192.0.2.7"),
        (encode_v2(ENDS), "192.0.2.7"),
        (encode_v2(None), "127.0.0.1"),
        (encode_v2(UnixEnds(b"", b"/run/a.sock")), "127.0.0.1"),
    ],
    ids=["v1", "v2", "of its own", "unix"],
)
def test_a_header_names_the_client(module: ModuleType, header: bytes, client: str, http2: bool) -> None:
    """For requests behind it, which may come in any pieces; without a name it is the proxy itself."""
    module.app = echo  # type: ignore[attr-defined]
    with served(**options("127.0.0.1", http2=http2)) as server:
        assert raw(server, header + GET).endswith(f"http {client} /a 0".encode())
        host, _, port = server.address().rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in header + GET:
                sock.sendall(bytes([byte]))
            assert sock.makefile("rb").read().endswith(f"http {client} /a 0".encode())
        if http2:
            with socket.create_connection((host, int(port)), PATIENCE) as sock:
                sock.sendall(header)
                with Http2Client(sock) as connection:
                    assert connection.answer(connection.request()).body.startswith(f"http {client} ".encode())


def test_a_client_behind_a_header_is_no_trusted_proxy(module: ModuleType) -> None:
    """What it says itself is believed only if its own address is one of those."""
    module.app = echo  # type: ignore[attr-defined]
    for trust, client in ((["127.0.0.1"], "192.0.2.7"), (["192.0.2.0/24"], "198.51.100.1")):
        with served(**options("127.0.0.1", trust=trust)) as server:
            assert f"http {client} /a".encode() in raw(server, encode_v2(ENDS) + GET)


def test_only_proxies_are_read_a_header_from(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Of others it is no HTTP; and a proxy that sends none, or none in time, is refused with a line."""
    caplog.set_level("INFO", "web")
    module.app = echo  # type: ignore[attr-defined]
    with served(**options("192.0.2.0/24", "unix")) as server:
        assert raw(server, encode_v1(ENDS) + GET).startswith(b"HTTP/1.1 400 ")
        assert b"http 127.0.0.1 /a 0" in raw(server, GET)
    with served(**options("127.0.0.0/8")) as server:
        assert raw(server, GET) == b""
        assert "refused a connection of 127.0.0.1: it does not begin with a PROXY header" in caplog.text
    with served(**options("127.0.0.0/8", head_timeout=Duration("10ms"))) as server:
        assert raw(server, b"PROXY") == b""
        assert "refused a connection of 127.0.0.1: it sent no PROXY header in time" in caplog.text


@pytest.mark.parametrize("sends", [b"", encode_v2(ENDS)[:20]])
def test_a_proxy_that_sends_nothing_does_not_hold_a_drain(module: ModuleType, sends: bytes) -> None:
    """It has a moment to come to its request."""
    module.app = echo  # type: ignore[attr-defined]
    with served(**options("127.0.0.1", drain_timeout=100.0)) as server:
        host, _, port = server.address().rpartition(":")
        silent = socket.create_connection((host, int(port)), PATIENCE)
        silent.sendall(sends)
        until(lambda: connections(server) == 1)
    with silent:
        assert silent.recv(1) == b""


def test_a_header_before_tls_is_refused() -> None:
    """As an option: it could not be read there."""
    with pytest.raises(ValueError, match="a PROXY header precedes TLS"):
        Options(listen=[Endpoint.parse("tls://:0?cert=c")], **options("unix"))
