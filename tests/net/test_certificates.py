"""Certificates that are renewed on disk."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tamed.net.endpoint import TlsEndpoint
from tamed.net.stream import StreamServer
from tamed.net.tls import CertificateWatch, ServerTls

pytestmark = pytest.mark.anyio


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")


def _issue(ca: trustme.CA, path: Path, end: datetime | None = None) -> None:
    """Replace a certificate as those do who renew one: in one step."""
    new = path.with_suffix(".new")
    ca.issue_cert("localhost", not_after=end).private_key_and_cert_chain_pem.write_to_path(str(new))
    new.rename(path)


async def _issuer(server: StreamServer) -> bytes:
    """Connect and return the certificate that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    port = int(server.addresses[0].rpartition(":")[2])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return shown


@asynccontextmanager
async def _watched(pem: Path) -> AsyncIterator[tuple[StreamServer, CertificateWatch]]:
    """Serve with a certificate, and yield what watches it, which looks only when it is asked to."""
    async with StreamServer(f"tls://localhost:0?cert={pem}", _greet) as server:
        (listener,) = server.listeners
        assert listener.tls is not None
        with closing(CertificateWatch(listener.tls, interval=3600)) as watch:
            yield server, watch


async def test_a_new_certificate_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the handshakes that come after; a look at files that are the same does nothing.

    When it ends is known of the one that is shown, and not of the file.
    """
    caplog.set_level("INFO", "tamed.net")
    pem = tmp_path / "server.pem"
    first, second = (datetime(year, 1, 1, tzinfo=UTC) for year in (2040, 2041))
    _issue(trustme.CA(), pem, first)
    async with _watched(pem) as (server, watch):
        before = await _issuer(server)
        watch.check()
        assert await _issuer(server) == before
        _issue(trustme.CA(), pem, second)
        assert server.certificates == ((server.addresses[0], str(pem), first.timestamp()),)
        watch.check()
        assert await _issuer(server) != before
        assert server.certificates[0].ends == second.timestamp()
        assert "has a new certificate" in caplog.text


async def test_a_bad_certificate_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bad certificate is reported once, and the server continues with the current one."""
    pem = tmp_path / "server.pem"
    _issue(trustme.CA(), pem)
    async with _watched(pem) as (server, watch):
        before = await _issuer(server)
        pem.write_text("half a certificate")
        watch.check()
        watch.check()
        assert await _issuer(server) == before
        assert caplog.text.count("keeps its certificate") == 1
        pem.unlink()
        watch.check()
        assert await _issuer(server) == before


async def test_it_looks_by_itself(tmp_path: Path) -> None:
    """The files are checked periodically until the watcher is closed."""
    pem = tmp_path / "server.pem"
    _issue(trustme.CA(), pem)
    endpoint = TlsEndpoint("localhost", 0, pem)
    looks = asyncio.Semaphore(0)

    class Watch(CertificateWatch):
        def check(self) -> None:
            super().check()
            looks.release()

    watch = Watch(ServerTls(endpoint), interval=0.001)
    for _ in range(3):
        await looks.acquire()
    watch.close()
