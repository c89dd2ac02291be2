"""Several certificates at one endpoint, and what is known of the certificates of both sides."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tamed.errors import ConfigurationError
from tamed.net.endpoint import KeyPair, TlsEndpoint
from tamed.net.stream import StreamServer
from tamed.net.tls import CertificateWatch, ServerTls, TlsSession, tls_session
from tests.net.certificates import Files, Handshake, client_of, make_files, serial_of


@pytest.fixture
def authority() -> trustme.CA:
    """Give an authority that clients trust."""
    return trustme.CA()


@pytest.fixture
def sites(tmp_path: Path, authority: trustme.CA) -> dict[str, Files]:
    """Give the files of three certificates, each for some names."""
    names = {"first": ["localhost", "first.example"], "exact": ["a.example.com"], "wild": ["*.EXAMPLE.com"]}
    ec = trustme.KeyType.ECDSA
    return {site: make_files(tmp_path / site, authority, ec, *names[site]) for site in names}


def endpoint_of(sites: dict[str, Files], **settings: str) -> TlsEndpoint:
    """Return an endpoint with all of them; the first has a file for its key, the others have not."""
    first, *others = sites.values()
    more = tuple(KeyPair(each.both) for each in others)
    return TlsEndpoint("localhost", 0, first.cert, first.key, more=more, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("first.example", "first"),
        ("a.example.com", "exact"),
        ("A.Example.Com", "exact"),
        ("b.example.com", "wild"),
        ("deep.b.example.com", "first"),
        ("example.com", "first"),
        ("elsewhere.example", "first"),
        (None, "first"),
    ],
)
def test_a_client_gets_the_certificate_for_the_name_it_asks_for(
    sites: dict[str, Files], name: str | None, site: str
) -> None:
    """The exact name comes before the wildcard, which stands for one label; other names get the first."""
    client = client_of(sites["first"])
    client.check_hostname = False
    handshake = Handshake(ServerTls(endpoint_of(sites)), client, name)
    assert handshake.shown == serial_of(sites[site])


@pytest.mark.anyio
async def test_unknown_names_may_be_refused(sites: dict[str, Files]) -> None:
    """The handshake fails, for a client without a name too; others are served."""
    client = client_of(sites["first"])
    client.check_hostname = False
    endpoint = endpoint_of(sites, unknown_name="refuse")
    assert Handshake(ServerTls(endpoint), client, "b.example.com").shown == serial_of(sites["wild"])
    for name in ("elsewhere.example", "127.0.0.1"):
        with pytest.raises(OSError, match=r".*"):  # asyncio closes the connection without the alert
            await session_with(endpoint, client, name)


def test_all_certificates_are_renewed_with_what_they_offer(
    sites: dict[str, Files], authority: trustme.CA
) -> None:
    """Each for its name, also for a name that is new; the protocols of ALPN stay on offer."""
    tls = ServerTls(endpoint_of(sites))
    tls.offer(["h2", "http/1.1"])
    client = client_of(sites["first"])
    client.set_alpn_protocols(["h2"])
    before = Handshake(tls, client, "a.example.com")
    make_files(sites["exact"].folder, authority, trustme.KeyType.RSA, "a.example.com", "new.example")
    make_files(sites["first"].folder, authority, trustme.KeyType.ECDSA, "localhost")
    tls.renew()
    for name, site in (("a.example.com", "exact"), ("new.example", "exact"), ("localhost", "first")):
        after = Handshake(tls, client, name)
        assert after.shown == serial_of(sites[site]) != before.shown
        assert after.client.selected_alpn_protocol() == "h2"


def test_a_name_belongs_to_one_certificate(sites: dict[str, Files], authority: trustme.CA) -> None:
    """A second certificate for it, and one that no name leads to, are refused with a line."""
    make_files(sites["wild"].folder, authority, trustme.KeyType.ECDSA, "a.example.com")
    with pytest.raises(ConfigurationError) as caught:
        ServerTls(endpoint_of(sites))
    assert str(caught.value) == (
        f"TLS certificate {sites['wild'].both}: {sites['exact'].both} has the name a.example.com, too; "
        "give one certificate for each name"
    )
    make_files(sites["wild"].folder, authority, trustme.KeyType.ECDSA, "127.0.0.1")
    with pytest.raises(
        ConfigurationError, match="it has no host name, so no client would get it; leave it out"
    ):
        ServerTls(endpoint_of(sites))


@pytest.mark.anyio
async def test_an_expired_certificate_is_served_with_a_warning(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of the log names it, once; a daemon whose worker is replaced then goes on."""
    pem = tmp_path / "old.pem"
    for days, said in ((-1, "it expired on "), (1, "")):
        ends = datetime.now(UTC) + timedelta(days=days)
        issued = authority.issue_cert("localhost", not_after=ends)
        issued.private_key_and_cert_chain_pem.write_to_path(pem)
        tls = ServerTls(TlsEndpoint("localhost", 0, pem))
        watch = CertificateWatch(tls)
        watch.check()
        watch.close()
        assert caplog.text.count(f"TLS certificate {pem}: it expired on ") == 1
        assert bool(said) == any(said in fault for fault in tls.faults())
    begins = datetime.now(UTC) + timedelta(days=1)
    issued = authority.issue_cert("localhost", not_before=begins)
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    (fault,) = ServerTls(TlsEndpoint("localhost", 0, pem)).faults()
    assert "it is not valid before " in fault


async def session_with(
    endpoint: TlsEndpoint, client: ssl.SSLContext, name: str = "localhost"
) -> TlsSession | None:
    """Return what a service of its own hears of a client's TLS."""
    heard: list[TlsSession | None] = []

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(tls_session(writer))

    async with StreamServer(endpoint, greet) as server:
        port = int(server.addresses[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client, server_hostname=name)
        await reader.read()
        writer.close()
        await writer.wait_closed()
    return heard[0] if heard else None


@pytest.mark.anyio
async def test_a_service_hears_who_its_client_is(sites: dict[str, Files], authority: trustme.CA) -> None:
    """By the certificate that was verified; with ``verify_client=optional`` a client may have none."""
    files = sites["first"]
    endpoint = endpoint_of(sites).replace(client_ca=files.ca, verify_client="optional")
    client = client_of(files)
    session = await session_with(endpoint, client)
    assert session is not None
    assert session.version == 0x0304
    assert session.cipher_suite in range(0x1301, 0x1304)  # RFC 8446, B.4
    assert session.server_certificate.strip() == files.cert.read_text().strip()
    assert (session.client_certificates, session.client_name, session.client_alt_names) == ((), "", ())
    issued = authority.issue_cert("alice@example.com", organization_name="A, B", common_name=" #1 ")
    issued.configure_cert(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    session = await session_with(endpoint.replace(verify_client="required"), client)
    assert session is not None
    assert session.version == 0x0303
    assert session.cipher_suite in {0xC02B, 0xC02C, 0xCCA9}  # RFC 5289, RFC 7905
    own = x509.load_pem_x509_certificate(session.client_certificates[0].encode())
    assert own == x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    assert session.client_name.startswith("CN=\\ #1\\ ,")
    assert session.client_name.endswith(",O=A\\, B")
    assert session.client_alt_names == (("email", "alice@example.com"),)


@pytest.mark.anyio
async def test_a_certificate_that_is_optional_must_be_good(sites: dict[str, Files]) -> None:
    """A client that sends one of another authority does not get in."""
    endpoint = endpoint_of(sites).replace(client_ca=sites["first"].ca, verify_client="optional")
    client = client_of(sites["first"])
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # with TLS 1.3 it might only find the connection closed
    trustme.CA().issue_cert("alice@example.com").configure_cert(client)
    with pytest.raises(OSError, match=r".*"):
        await session_with(endpoint, client)


@pytest.mark.anyio
async def test_a_connection_without_tls_has_no_session() -> None:
    """None says so."""
    heard: list[TlsSession | None] = []

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(tls_session(writer))

    async with StreamServer("localhost:0", greet) as server:
        reader, writer = await asyncio.open_connection(
            "localhost", int(server.addresses[0].rpartition(":")[2])
        )
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert heard == [None]
