"""The web with programs that stand before it, and with a browser's ways to talk to it."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.browser import Browser
from tests.builtin.real_clients import needs, run
from tests.patience import PATIENCE
from tests.supervised.forked import service

APPLICATION = """
import json

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            client = scope["client"] and scope["client"][0]
            text = f"{scope['scheme']} {client} {message['text']}"
            await send({"type": "websocket.send", "text": text})
        return
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    events = scope["path"] == "/events"
    kind = b"text/event-stream" if events else b"text/html"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if events:
        for number in range(3):
            data = f"data: {number}\\n\\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await receive()  # until the client has left
    else:
        told = [scope["scheme"], scope["client"] and scope["client"][0], scope["http_version"], len(body)]
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""

NGINX = """
daemon off; worker_processes 1; {user} pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_max_body_size 0;
  {temporary}
  server {{
    listen {address};
    location / {{
      proxy_pass http://unix:{folder}/web.sock;
      proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For 192.0.2.7; proxy_set_header X-Forwarded-Proto https;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect {seconds}s
  timeout client {seconds}s
  timeout server {seconds}s
frontend front
  bind fd@{fd}
  default_backend web
backend web
  http-request set-header X-Forwarded-For 192.0.2.7
  http-request set-header X-Forwarded-Proto https
  server web unix@{folder}/web.sock {version}
"""

CADDY = """
{{
  admin off
  auto_https off
}}
http://{address} {{
  bind 127.0.0.1
  reverse_proxy unix/{folder}/web.sock {{
    header_up X-Forwarded-For 192.0.2.7
    header_up X-Forwarded-Proto https
    transport http {{
      versions {version}
    }}
  }}
}}
"""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """Serve the application; yield its address."""
    (folder / "proxied_app.py").write_text(APPLICATION)
    words = ("--app", "proxied_app:application", "--app-dir", str(folder), "--http2", *arguments)
    with service("web", *words) as process:
        address = process.expect(r"listening on (\S+)")[1]
        process.expect("is ready(:|$)")
        yield address


@contextmanager
def in_front(folder: Path, proxy: str) -> Iterator[str]:
    """Run a proxy in front of the socket ``web.sock``; yield its address, where clients may wait."""
    kind, _, version = proxy.partition(" ")
    file = folder / "proxy.conf"
    if kind == "caddy":
        with _caddy(folder, file, version) as address:
            yield address
        return
    with socket.create_server(("127.0.0.1", 0)) as front:
        front.setblocking(False)  # nginx expects it of what it inherits
        address, fd = "{}:{}".format(*front.getsockname()), front.fileno()
        if kind == "nginx":
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
            temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
            file.write_text(NGINX.format(folder=folder, temporary=temporary, address=address, user=user))
            command = [_program("nginx"), "-e", "stderr", "-c", str(file)]
        else:
            words = version.replace("h2", "proto h2")
            file.write_text(HAPROXY.format(folder=folder, seconds=int(PATIENCE), version=words, fd=fd))
            command = [_program("haproxy"), "-db", "-f", str(file)]
        with _running(command, fd, NGINX=f"{fd};"):  # for nginx: what it inherits, as at its own upgrade
            yield address


@contextmanager
def _caddy(folder: Path, file: Path, version: str) -> Iterator[str]:
    """Run Caddy, which inherits no socket: it shares a port that is bound here, and says when it listens."""
    with socket.socket() as front, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        front.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*front.getsockname())
        file.write_text(CADDY.format(folder=folder, address=address, version=version or "1.1"))
        manager.bind(f"{folder}/notify.sock")
        manager.settimeout(PATIENCE)
        command = [_program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
        with _running(command, HOME=str(folder), NOTIFY_SOCKET=f"{folder}/notify.sock"):
            while b"READY=1" not in manager.recv(1024):
                pass
            yield address


@contextmanager
def _running(command: list[str], *inherited: int, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        pass_fds=inherited,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()  # with its workers
        process.wait(PATIENCE)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@needs("curl")
@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "haproxy h2", "caddy", "caddy h2c"])
def test_a_proxy_on_a_unix_socket_tells_who_the_client_is(tmp_path: Path, proxy: str) -> None:
    """To requests with long bodies, and to WebSockets, which it passes on; ``--trust unix`` believes it."""
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    with (
        serving(tmp_path, "--listen", f"unix:{tmp_path}/web.sock", "--trust", "unix"),
        in_front(tmp_path, proxy) as front,
    ):
        ask = "curl", "-sSf", "-T", tmp_path / "file", f"http://{front}/a"
        version = "2" if "h2" in proxy else "1.1"
        for _ in range(3):  # on connections that are kept, too
            done = run(*ask)
            assert json.loads(done.stdout) == ["https", "192.0.2.7", version, 3_000_000], done.stderr
        if version == "2":
            return
        with connect(f"ws://{front}/", open_timeout=PATIENCE, proxy=None) as client:
            client.send("verse")
            assert client.recv(PATIENCE) == "wss 192.0.2.7 verse"


@needs("curl")
@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2 h2"])
def test_a_proxy_tells_who_the_client_is_before_it_asks(tmp_path: Path, header: str) -> None:
    """By the PROXY protocol, in front of either version of HTTP; what the client itself says is no news."""
    with (
        serving(tmp_path, "--listen", f"unix:{tmp_path}/web.sock", "--proxy-from", "unix"),
        in_front(tmp_path, f"haproxy {header}") as front,
    ):
        for _ in range(2):
            done = run("curl", "-sSf", "-d", "verse", f"http://{front}/")
            version = "2" if "h2" in header else "1.1"
            assert json.loads(done.stdout) == ["http", "127.0.0.1", version, 5], done.stderr


@needs("chromium")
def test_a_browser_fetches_talks_and_listens(tmp_path: Path) -> None:
    """By fetch, by WebSocket and by EventSource, from one page."""
    with serving(tmp_path, "--port", "0") as address, Browser() as browser:
        browser.open(f"http://{address}/")
        fetched = browser.run(
            "fetch('/post', {method: 'POST', body: 'x'.repeat(500000)}).then(a => a.json())"
        )
        assert fetched == ["http", address.rpartition(":")[0], "1.1", 500_000]
        said = browser.run(
            "new Promise((done, fail) => { const socket = new WebSocket(`ws://${location.host}/`);"
            " socket.onopen = () => socket.send('verse'); socket.onerror = fail;"
            " socket.onmessage = event => { socket.close(); done(event.data) } })"
        )
        assert said == f"ws {address.rpartition(':')[0]} verse"
        events = browser.run(
            "new Promise((done, fail) => { const all = [], source = new EventSource('/events');"
            " source.onerror = fail; source.onmessage = event => { all.push(event.data);"
            " if (all.length === 3) { source.close(); done(all) } } })"
        )
        assert events == ["0", "1", "2"]
        assert browser.problems == []


@needs("wrk")
def test_another_load_generator_sees_no_error(tmp_path: Path) -> None:
    """It keeps connections, and counts what it is not answered."""
    with serving(tmp_path, "--port", "0", "--no-access-log") as address:
        done = run("wrk", "-t", "2", "-c", "20", "-d", "1s", f"http://{address}/")
    assert "Requests/sec" in done.stdout
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
