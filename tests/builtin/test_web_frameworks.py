"""Applications of real frameworks, served by the web over HTTP/1.1 and HTTP/2: each for what it is known for.

They are installed, as released, into a folder of their own, which takes the network and a minute.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.builtin.real_clients import needs, run
from tests.patience import PATIENCE
from tests.supervised.forked import service

pytestmark = [pytest.mark.long, needs("curl")]

FRAMEWORKS = (
    "fastapi",
    "python-multipart",
    "litestar",
    "django",
    "channels",
    "quart",
    "flask",
    "httpx[http2]",
)

APPLICATIONS = """
import asyncio

from fastapi import BackgroundTasks, FastAPI, UploadFile, WebSocket
from fastapi.responses import FileResponse, StreamingResponse

done = []
fast = FastAPI()

@fast.get("/tasks/{number}")
async def tasks(number: int, tasks: BackgroundTasks):
    tasks.add_task(done.append, number)
    return {"done": done}

@fast.post("/upload")
async def upload(file: UploadFile):
    size = 0
    while part := await file.read(1 << 20):
        size += len(part)
    return size

@fast.get("/file")
async def file():
    return FileResponse(__file__)

@fast.get("/events")
async def events():
    async def sequence():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0)
    return StreamingResponse(sequence(), media_type="text/event-stream")

@fast.websocket("/socket")
async def socket(socket: WebSocket):
    await socket.accept()
    await socket.send_text(await socket.receive_text())

from flask import Flask, request

flask = Flask("flask")

@flask.post("/")
def take():
    return str(len(request.get_data()))

from quart import Quart, request as quart_request, websocket

quart = Quart("quart")

@quart.post("/")
async def take():
    return str(len(await quart_request.get_data()))

@quart.websocket("/socket")
async def quart_socket():
    await websocket.send(await websocket.receive())

from litestar import Litestar, post, Request

@post("/")
async def count(request: Request) -> int:
    return len(await request.body())

lite = Litestar([count])

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DATA_UPLOAD_MAX_MEMORY_SIZE=None
)
django.setup()

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

@csrf_exempt
def body(request):
    return HttpResponse(str(len(request.body)))

async def parts(request):
    async def sequence():
        for number in range(3):
            yield str(number)
    return StreamingHttpResponse(sequence())

urlpatterns = [path("", body), path("parts", parts)]
django_wsgi = get_wsgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter

class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)

django_asgi = ProtocolTypeRouter({
    "http": get_asgi_application(),
    "websocket": URLRouter([path("socket", Echo.as_asgi())]),
})

from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def measure(request: StarletteRequest):
    size = 0
    async for part in request.stream():
        size += len(part)
    return PlainTextResponse(str(size))

star = Starlette(routes=[Route("/", measure, methods=["POST"])])
"""

PLACES = {
    "/fast": "fast",
    "/flask": "flask",
    "/quart": "quart",
    "/star": "star",
    "/lite": "lite",
    "/django": "django_asgi",
    "/old-django": "django_wsgi",
}

SIZE = 8_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the frameworks, and return where."""
    folder = tmp_path_factory.mktemp("frameworks")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--prefer-binary", "--target", str(folder)]
    done = subprocess.run([*command, *FRAMEWORKS], capture_output=True, text=True, timeout=500, check=False)
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"they cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Serve the applications, and return where."""
    (folder / "web_frameworks.py").write_text(APPLICATIONS)
    mounts = [word for path, name in PLACES.items() for word in ("--mount", f"{path}=web_frameworks:{name}")]
    environ = {"PYTHONPATH": str(folder)}
    with service("web", "--http2", "--port", "0", *mounts, env=environ, cwd=folder) as process:
        address = process.expect(r"listening on (\S+)")[1]
        process.expect("is ready(:|$)")
        yield f"http://{address}"


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/fast/events", "data: 0\n\ndata: 1\n\ndata: 2\n\n"),
        ("/fast/file", APPLICATIONS),
        ("/django/parts", "012"),
        ("/old-django/", "0"),
    ],
)
def test_what_frameworks_send_arrives(url: str, version: str, path: str, answer: str) -> None:
    """Streams, events, files, and answers of WSGI."""
    assert run("curl", "-sSf", version, f"{url}{path}").stdout == answer


def test_work_behind_an_answer_is_done(url: str) -> None:
    """It does not hold the answer up."""
    assert run("curl", "-sSf", f"{url}/fast/tasks/1").stdout == '{"done":[]}'
    assert run("curl", "-sSf", f"{url}/fast/tasks/2").stdout == '{"done":[1]}'


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(
    "path", ["/fast/upload", "/flask/", "/lite/", "/quart/", "/star/", "/django/", "/old-django/"]
)
def test_what_clients_send_arrives(url: str, tmp_path: Path, version: str, path: str) -> None:
    """Bodies of many megabytes, as a form or as they are."""
    (tmp_path / "body").write_bytes(b"x" * SIZE)
    words = ("-F", "file=@body") if path == "/fast/upload" else ("--data-binary", "@body")
    command = ["curl", "-sSf", version, *words, f"{url}{path}"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout == str(SIZE), done.stderr


@pytest.mark.parametrize("path", ["/fast/socket", "/quart/socket", "/django/socket"])
def test_websockets_of_frameworks_are_served(url: str, path: str) -> None:
    """Those of three that read and write them in different ways."""
    with connect(f"ws{url.removeprefix('http')}{path}", open_timeout=PATIENCE, proxy=None) as client:
        client.send("verse")
        assert client.recv(PATIENCE) == "verse"


@pytest.mark.parametrize("version", [1, 2])
def test_httpx_is_answered(url: str, folder: Path, version: int) -> None:
    """By either version, on one connection."""
    script = (
        "import httpx\n"
        f"with httpx.Client(http1={version == 1}, http2={version == 2}, trust_env=False) as client:\n"
        "    for _ in range(3):\n"
        f"        got = client.post('{url}/star/', content=b'x' * 1_000_000, timeout={PATIENCE})\n"
        "        print(got.http_version, got.text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == f"HTTP/{'1.1' if version == 1 else 2} 1000000\n" * 3, done.stderr
