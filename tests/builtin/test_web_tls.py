"""What applications of the web hear of TLS."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from websockets.sync.client import connect

from tamed.service.service import Service
from tamed.testing.running import Served
from tests.builtin.test_web import get, module, served
from tests.net.certificates import Files, client_of, make_files
from tests.patience import PATIENCE

__all__ = ["module"]  # a fixture


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Give a certificate of an authority that signs those of clients too."""
    return make_files(tmp_path / "tls", trustme.CA())


@contextmanager
def serving_to(clients: str, files: Files, module: ModuleType, application: Any) -> Iterator[Served[Service]]:
    """Serve an application to clients of which a certificate is required, or optional."""
    module.app = application  # type: ignore[attr-defined]
    endpoint = files.endpoint.replace(client_ca=files.ca, verify_client=clients)
    with served(app="web_test_app:app", listen=[endpoint], http2=True) as server:
        yield server


def port_of(server: Served[Service]) -> int:
    """Return the port of a server."""
    return int(server.address().rpartition(":")[2])


def told(server: Served[Service], client: ssl.SSLContext) -> Any:
    """Return what an application has to tell of a client, over HTTP/1.1."""
    connection = http.client.HTTPSConnection("localhost", port_of(server), context=client, timeout=PATIENCE)
    connection.request("GET", "/")
    answer = connection.getresponse().read()
    connection.close()
    return json.loads(answer)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Tell the extension ``tls``."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    extension = json.dumps(scope["extensions"].get("tls"))
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": extension})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": extension.encode()})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Tell the variables for a client's certificate."""
    start_response("200 OK", [])
    return [json.dumps({name: environ[name] for name in environ if name.startswith("SSL_")}).encode()]


def alice(files: Files) -> tuple[ssl.SSLContext, str]:
    """Return the context of a client that has a certificate, and the certificate."""
    client = client_of(files)
    issued = files.authority.issue_cert("alice@example.com", common_name="alice")
    issued.configure_cert(client)
    return client, issued.cert_chain_pems[0].bytes().decode()


def test_an_application_hears_who_its_client_is(module: ModuleType, files: Files) -> None:
    """In the scope of HTTP and of WebSocket, as ASGI's TLS extension has it."""
    client, certificate = alice(files)
    with serving_to("required", files, module, asgi) as server:
        heard = told(server, client)
        url = f"wss://localhost:{port_of(server)}/"
        with connect(url, ssl=client, open_timeout=PATIENCE, proxy=None) as socket:
            assert json.loads(socket.recv(PATIENCE)) == heard
    assert heard["client_cert_name"].startswith("CN=alice,")
    assert heard["client_cert_chain"][0].strip() == certificate.strip()
    assert heard["client_cert_error"] is None
    assert heard["tls_version"] == 0x0304
    assert heard["cipher_suite"] in range(0x1301, 0x1304)
    assert heard["server_cert"].strip() == files.cert.read_text().strip()


def test_a_wsgi_application_hears_who_its_client_is(module: ModuleType, files: Files) -> None:
    """In the variables of mod_ssl, which no header of a client can set."""
    client, certificate = alice(files)
    with serving_to("required", files, module, wsgi) as server:
        heard = told(server, client)
    assert heard["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert heard["SSL_CLIENT_S_DN"].startswith("CN=alice,")
    assert heard["SSL_CLIENT_CERT"].strip() == certificate.strip()


def test_a_client_without_a_certificate_is_nobody(module: ModuleType, files: Files) -> None:
    """Where certificates are optional; in clear text there is no extension."""
    for application, nobody in ((asgi, None), (wsgi, {"SSL_CLIENT_VERIFY": "NONE"})):
        with serving_to("optional", files, module, application) as server:
            heard = told(server, client_of(files))
        if nobody is None:
            assert (heard["client_cert_name"], heard["client_cert_chain"]) == (None, [])
        else:
            assert heard == nobody
        with served(app="web_test_app:app") as server:
            assert json.loads(get(server, "/")[2]) == ({} if nobody else None)
