import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tamed.testing.process import TamedProcess
from tests.builtin.clients import needs, run, target
from tests.patience import PATIENCE
from tests.supervised.forked import service

POEM = b"Busy old fool, unruly sun\n"


def forward(*options: str | Path, listen: str = "127.0.0.1:0") -> TamedProcess:
    """Return a process that forwards from a free port."""
    return service("portforward", "--check-interval", "0", "--listen", listen, *options)


def port_of(process: TamedProcess) -> str:
    """Wait until it is ready; return its port."""
    port = process.expect(r"listening on \S+:(\d+)$")[1]
    process.expect("is ready$")
    return port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Run a server to forward to."""
    with target() as port:
        yield port


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Path:
    """Write a certificate for ``localhost``, with its key."""
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    return pem


@needs("nc")
def test_nc_ends_its_side_and_gets_the_answer(port: int) -> None:
    """More than the buffers hold, both ways, with an end in each direction."""
    sent = b"a line\n" * 100_000
    with forward("--to", f"127.0.0.1:{port}") as process:
        done = run("nc", "-N", "127.0.0.1", port_of(process), given=sent)
        assert done.stdout == sent
        process.expect(f"{len(sent)} bytes sent, {len(sent)} received, .* closed$")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


@needs("nc")
def test_nc_over_a_unix_socket(port: int, tmp_path: Path) -> None:
    """From a socket's file to a port."""
    with forward("--to", f"127.0.0.1:{port}", listen=f"unix:{tmp_path}/x.sock") as process:
        process.expect("is ready$")
        done = run("nc", "-N", "-U", f"{tmp_path}/x.sock", given=b"sun\n")
        assert done.stdout == b"sun\n"


@needs("openssl")
def test_openssl_s_client(port: int, certificate: Path, ca: Path) -> None:
    """A client that verifies us, of a server that speaks no TLS."""
    with forward("--to", f"127.0.0.1:{port}", listen=f"tls://127.0.0.1:0?cert={certificate}") as process:
        where = f"127.0.0.1:{port_of(process)}"
        done = run(
            "openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(ca), "-verify_hostname",
            "localhost", "-connect", where, "-ign_eof", given=b"GET / HTTP/1.0\r\n\r\n",
        )  # fmt: skip
        assert done.stdout == b"HTTP/1.0 200 OK\r\n\r\n" + POEM, done


@needs("openssl")
@needs("curl")
def test_openssl_s_server(certificate: Path, ca: Path) -> None:
    """An upstream that speaks TLS, to a client that does not; verified by its authority and name."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-www"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            while b"ACCEPT" not in server.stdout.readline():
                assert server.poll() is None
            options = ("--to", f"127.0.0.1:{port}", "--tls", "--tls-ca", ca, "--tls-name", "localhost")
            with forward(*options) as process:
                done = run("curl", "-sS", f"http://127.0.0.1:{port_of(process)}/")
                assert b"TLSv1.3" in done.stdout, done
        finally:
            server.kill()
            server.stdout.close() if server.stdout is not None else None


@contextmanager
def haproxy(folder: Path, front: str, back: str) -> Iterator[int]:
    """Run haproxy between a listening socket of ours and what ``back`` says; give the socket's port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        file = folder / "haproxy.cfg"
        mode = "http" if "return" in back else "tcp"
        timeouts = "".join(f" timeout {side} 10s\n" for side in ("connect", "client", "server"))
        listening = f"frontend front\n mode {mode}\n bind fd@{sock.fileno()} {front}\n {back}\n"
        file.write_text(f"defaults\n{timeouts}{listening}")
        command = ["haproxy", "-db", "-f", str(file)]
        with subprocess.Popen(command, pass_fds=[sock.fileno()], stderr=subprocess.PIPE) as process:
            try:
                yield sock.getsockname()[1]
            finally:
                process.kill()
                assert process.stderr is not None
                process.stderr.close()


@needs("haproxy")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy_tells_us_who_the_client_is(send: str, port: int, tmp_path: Path) -> None:
    """The log has the client's own address, behind a trusted haproxy."""
    with forward("--to", f"127.0.0.1:{port}", "--proxy-from", "127.0.0.1") as process:
        upstream = f"server s 127.0.0.1:{port_of(process)} {send}"
        back = f"default_backend tamed\nbackend tamed\n mode tcp\n {upstream}"
        with (
            haproxy(tmp_path, "", back) as front,
            socket.create_connection(("127.0.0.1", front), timeout=PATIENCE) as client,
        ):
            client.sendall(b"sun\n")
            client.shutdown(socket.SHUT_WR)
            assert client.makefile("rb").read() == b"sun\n"
            own = client.getsockname()[1]
        process.expect(rf"127\.0\.0\.1:{own} by 127\.0\.0\.1:\d+ to 127\.0\.0\.1:{port}: 4 bytes sent")


@needs("haproxy")
@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("over_tls", [False, True])
def test_we_tell_haproxy_who_the_client_is(
    kind: str, over_tls: bool, tmp_path: Path, certificate: Path, ca: Path
) -> None:
    """It understands our header, before TLS too, and answers with the address of the client."""
    back = 'http-request return status 200 content-type text/plain lf-string "%ci:%cp"'
    front = f"accept-proxy ssl crt {certificate}" if over_tls else "accept-proxy"
    with haproxy(tmp_path, front, back) as port:
        tls = ("--tls", "--tls-ca", ca, "--tls-name", "localhost") if over_tls else ()
        with forward("--to", f"127.0.0.1:{port}", "--proxy-to", kind, *tls) as process:
            where = ("127.0.0.1", int(port_of(process)))
            with socket.create_connection(where, timeout=PATIENCE) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                own = "{}:{}".format(*client.getsockname())
                assert client.makefile("rb").read().endswith(f"\r\n\r\n{own}".encode())


@needs("haproxy")
def test_haproxy_does_not_mind_our_checks(tmp_path: Path, certificate: Path, ca: Path) -> None:
    """They speak PROXY and TLS as the clients' connections do, so an upstream is not down for them."""
    back = 'http-request return status 200 content-type text/plain string "well"'
    with haproxy(tmp_path, f"accept-proxy ssl crt {certificate}", back) as port:
        options = ("--proxy-to", "v2", "--tls", "--tls-ca", ca, "--tls-name", "localhost")
        with forward("--to", f"127.0.0.1:{port}", *options, "--check-interval", "10ms") as process:
            where = ("127.0.0.1", int(port_of(process)))
            for _ in range(20):
                with socket.create_connection(where, timeout=PATIENCE) as client:
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert client.makefile("rb").read().endswith(b"well")
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
        assert "is down" not in process.output


@needs("nc")
def test_a_client_that_speaks_no_tls(certificate: Path, port: int) -> None:
    """A client that speaks no TLS to a tls:// endpoint is one line, and the next one is served."""
    with forward("--to", f"127.0.0.1:{port}", listen=f"tls://127.0.0.1:0?cert={certificate}") as process:
        where = port_of(process)
        run("nc", "-N", "127.0.0.1", where, given=b"GET / HTTP/1.0\r\n\r\n")
        process.expect("before it began")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", int(where)), timeout=PATIENCE) as sock,
            context.wrap_socket(sock) as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").readline() == b"HTTP/1.0 200 OK\r\n"
