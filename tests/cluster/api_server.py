"""A small API server of Kubernetes, for Lease objects alone, over TLS.

It does what the documentation of the API says: a write with an old ``resourceVersion`` gets 409, a request
without a token 401, a wrong object 422. A test can make it slow, or have it fail.

``python -m tests.cluster.api_server ADDRESS PORT FOLDER`` is one that keeps its objects in a file of the
folder, which `write_credentials` has made.
"""

import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import trustme

from tests.cluster.servers import Serving, own_folder
from tests.threaded import in_thread

__all__ = ["ApiServer", "kubernetes", "write_credentials"]

PREFIX: Final = "/apis/coordination.k8s.io/v1/namespaces/fleet/leases"


class ApiServer(ThreadingHTTPServer):
    """Serves Lease objects of the namespace ``fleet``.

    ``token`` is what clients must show. ``latency`` are the seconds that a request takes. While ``is_out`` is
    set, requests get 503, and while ``is_old`` is, there are no Lease objects. ``lost_answers`` is how many
    of the next writes are done without an answer. Objects are kept in ``file``, if there is one.
    """

    daemon_threads = True

    def __init__(
        self, context: ssl.SSLContext, place: tuple[str, int] = ("127.0.0.1", 0), file: Path | None = None
    ) -> None:
        super().__init__(place, _Handler)
        self.context = context
        self.token = "first"
        self.latency = 0.0
        self.is_out = self.is_old = False
        self.lost_answers = 0
        self.leases: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.lock = threading.Lock()
        self._file = file
        if file is not None and file.exists():
            self.version, self.leases = json.loads(file.read_text())

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a client, in a thread of its own."""
        with (
            suppress(OSError, ValueError),  # it has left
            self.context.wrap_socket(request, server_side=True) as encrypted,
        ):
            super().finish_request(encrypted, client_address)

    def respond(self, method: str, name: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the object that answer a request."""
        with self.lock:
            if method == "GET":
                found = self.leases.get(name)
                return (200, found) if found else refusal(404, f'leases "{name}" not found')
            if (why := _wrong(body)) is not None:
                return refusal(422, why)
            name = body["metadata"]["name"]
            present = self.leases.get(name)
            if method == "POST" and present is not None:
                return refusal(409, f'leases "{name}" already exists')
            if method == "PUT":
                if present is None:
                    return refusal(404, f'leases "{name}" not found')
                if body["metadata"].get("resourceVersion") != present["metadata"]["resourceVersion"]:
                    return refusal(409, "the object has been modified")
            self.version += 1
            body["metadata"]["resourceVersion"] = str(self.version)
            self.leases[name] = body
            self._keep()
            return (201 if method == "POST" else 200), body

    def _keep(self) -> None:
        if self._file is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps((self.version, self.leases)))
            new.replace(self._file)


def refusal(code: int, message: str) -> tuple[int, dict[str, Any]]:
    """Return a refusal, as the API makes one."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def _wrong(body: Any) -> str | None:
    """Return what is wrong with a Lease."""
    spec = body.get("spec", {})
    if (body.get("apiVersion"), body.get("kind")) != ("coordination.k8s.io/v1", "Lease"):
        return "it is no Lease"
    if spec.get("holderIdentity", "someone") == "":
        return "spec.holderIdentity: must not be empty"
    if spec.get("leaseDurationSeconds", 1) <= 0:
        return "spec.leaseDurationSeconds: must be greater than 0"
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer

    def answer(self) -> None:
        """Answer a request."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.server.latency)
        code, data = self.judge(json.loads(content or b"null"))
        if self.command != "GET" and code < 300 and self.server.lost_answers:
            self.server.lost_answers -= 1
            self.close_connection = True
            return
        text = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the base class looks for these

    def judge(self, body: Any) -> tuple[int, dict[str, Any]]:
        """Return the answer to a request, by who sends it and for what."""
        if self.server.is_out:
            return refusal(503, "the server is currently unable to handle the request")
        if self.server.is_old:
            return refusal(404, "the server could not find the requested resource")
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return refusal(401, "Unauthorized")
        if not self.path.startswith(PREFIX):
            return refusal(403, "leases.coordination.k8s.io is forbidden")
        return self.server.respond(self.command, self.path.removeprefix(PREFIX).strip("/"), body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class ServingLeases(Serving):
    """An API server that serves, and its files."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        options = f"ca={folder}/ca.pem&token-file={folder}/token"
        super().__init__(server.server_port, lambda at: f"kubernetes://127.0.0.1:{at}/fleet?{options}")


@contextmanager
def kubernetes(*, is_old: bool = False) -> Iterator[ServingLeases]:
    """Run an API server."""
    with own_folder() as folder:
        write_credentials("127.0.0.1", folder)
        server = ApiServer(_context(folder))
        server.is_old = is_old
        with in_thread(server):
            yield ServingLeases(server, folder)


def write_credentials(address: str, folder: Path) -> None:
    """Write what a server at an address and its clients need: certificate, authority and token."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert(address).private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    (folder / "token").write_text("first\n")


def _context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


if __name__ == "__main__":
    _address, _port, _folder = sys.argv[1:]
    ApiServer(_context(Path(_folder)), (_address, int(_port)), Path(_folder, "leases")).serve_forever()
