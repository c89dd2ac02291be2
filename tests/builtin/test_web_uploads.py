"""Large uploads: the memory of the server does not grow with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builtin.real_clients import needs, run
from tests.supervised.forked import service

pytestmark = [needs("curl"), needs("nghttp")]

APPLICATIONS = """
import asyncio
import resource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; see getrusage(2)

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        await asyncio.sleep(0)  # so that the client is ahead
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": f"{size} {peak()}".encode()})

def wsgi(environ, start_response):
    size = 0
    while part := environ["wsgi.input"].read(1 << 16):
        size += len(part)
    start_response("200 OK", [])
    return [f"{size} {peak()}".encode()]
"""

GROWTH = 24 * 1024
"""KiB that the process may grow by at most: buffers of each side, and what the allocator keeps."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Serve an application of each kind that counts what it is sent, and tells the peak of its memory."""
    (tmp_path / "upload_apps.py").write_text(APPLICATIONS)
    mounts = [word for kind in ("asgi", "wsgi") for word in ("--mount", f"/{kind}=upload_apps:{kind}")]
    where = ("--port", "0", "--app-dir", str(tmp_path))
    with service("web", *where, "--http2", *mounts) as process:
        address = process.expect(r"listening on (\S+)")[1]
        process.expect("is ready(:|$)")
        yield f"http://{address}"


@pytest.mark.parametrize("size", [64 << 20, pytest.param(1 << 30, marks=pytest.mark.long)], ids=["64M", "1G"])
def test_memory_does_not_grow_with_uploads(tmp_path: Path, url: str, size: int) -> None:
    """Over HTTP/1.1, with a length or in chunks, and over HTTP/2; to ASGI and to WSGI."""
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(size)  # all zeros, and no disk
    for kind in ("asgi", "wsgi"):
        before = int(run("curl", "-sSf", f"{url}/{kind}").stdout.split()[1])
        clients: list[tuple[str | Path, ...]] = [
            ("curl", "-sSf", "-T", file),
            ("curl", "-sSf", "-T", file, "-H", "Transfer-Encoding: chunked"),
            ("nghttp", "-d", file),  # curl waits in each window of HTTP/2
        ]
        for client in clients:
            done = run(*client, f"{url}/{kind}/")
            assert done.returncode == 0, done.stderr
            taken, peak = map(int, done.stdout.split())
            assert taken == size
            assert peak - before < GROWTH, client
