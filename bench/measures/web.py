"""The web: what a request, a message of a WebSocket and a file cost servers in Python, and nginx."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load.http import H2LOAD, WRK, Answers, connections, echo, kept, requests
from bench.peers import (
    NGINX,
    granian,
    granian_files,
    gunicorn,
    hypercorn,
    nginx_files,
    nginx_text,
    tamed_files,
    tamed_web,
    uvicorn,
    uvicorn_files,
)
from bench.process import Process

__all__ = ["web"]

_CPU: Final = {
    "cpu": Figure("CPU each", "us", 1e6, 1),
    "failures": Figure("failed", "", 1, 0, exact=True),
}
_MEMORY: Final = {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)}

_SETTLED: Final = 3.0
"""Seconds after a change from which our server, too, may keep a file."""

Start = Callable[[Path], Process]
"""Makes a server; gets a folder for its files."""

Servers = Mapping[str, Start]

Load = Callable[[int, int], Answers]
"""Makes requests of the server at a port, so many or for so many seconds."""


class _Row(NamedTuple):
    key: str
    title: str
    load: Load
    amount: int
    """Requests, messages or seconds of a run; 0 for a row of memory."""
    servers: Servers
    """Ours first."""
    goals: Mapping[str, float]
    """How much we may take of what others take."""
    missing: str = ""
    """What is missing for the load."""


def _cpu(load: Load, amount: int, start: Start) -> Figures:
    """Serve as fast as the clients ask; tell what each answer took."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        load(server.port, max(amount // 10, 1))
        before = server.cpu()
        answers = load(server.port, amount)
        used = server.cpu() - before
    return {"cpu": used / max(answers.right, 1), "failures": answers.failed}


def _memory(load: Load, start: Start) -> Figures:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        load(server.port, 1000)
        return {"memory": server.memory()}


@cache
def _site(size: int) -> "tempfile.TemporaryDirectory[str]":
    """Return a folder with a file that has not changed for some time, as what is served mostly has not."""
    folder = tempfile.TemporaryDirectory()
    (Path(folder.name) / "static").mkdir()
    (Path(folder.name) / "static" / "file").write_bytes(bytes(size))
    time.sleep(_SETTLED)
    return folder


def _with_file(size: int, start: Start, folder: Path) -> Process:
    (folder / "site").symlink_to(_site(size).name)
    return start(folder)


_kept: Load = partial(kept, clients=64)
_connections: Load = partial(connections, clients=64)
_streams: Load = partial(requests, path="/", size=12, clients=8, streams=10)
_file: Callable[..., Answers] = partial(requests, path="/static/file", clients=32)
_thousand: Load = partial(requests, path="/", size=12, clients=64)
_echo: Load = partial(echo, clients=16)

_PYTHON: Final[Servers] = {
    "tamed": lambda _: tamed_web(),
    "uvicorn": lambda _: uvicorn(),
    "granian": lambda _: granian(),
    "gunicorn": lambda _: gunicorn(),
    "hypercorn": lambda _: hypercorn(),
}
_HTTP1: Final[Servers] = {**_PYTHON, "nginx": nginx_text}
_LOGGING: Final[Servers] = {
    "tamed": lambda _: tamed_web(access_log=True),
    "uvicorn": lambda _: uvicorn(access_log=True),
    "granian": lambda _: granian("--access-log"),
    "gunicorn": lambda _: gunicorn("--access-logfile", "-"),
    "hypercorn": lambda _: hypercorn("--access-logfile", "-"),
    "nginx": partial(nginx_text, access_log=True),
}
_HTTP2: Final[Servers] = {
    "tamed": lambda _: tamed_web("--http2"),
    "hypercorn": lambda _: hypercorn(),
    "granian": lambda _: granian("--http", "2"),
    "gunicorn": lambda _: gunicorn("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"),
    "nginx": partial(nginx_text, http2=True),
}


def _files(size: int) -> Servers:
    starts = {
        "tamed": tamed_files,
        "nginx": nginx_files,
        "granian": granian_files,
        "uvicorn": uvicorn_files,
    }
    return {name: partial(_with_file, size, start) for name, start in starts.items()}


_ROWS: Final = (
    _Row(
        "kept", "CPU per HTTP response on kept connections",
        _kept, 1, _HTTP1, {"uvicorn": 0.6, "granian": 1.25}, WRK,
    ),
    _Row(
        "each", "CPU per HTTP response, a connection each",
        _connections, 5_000, _HTTP1, {"uvicorn": 0.65},
    ),
    _Row(
        "log", "CPU per HTTP response on kept connections, with an access log",
        _kept, 1, _LOGGING, {"uvicorn": 0.35, "granian": 0.6}, WRK,
    ),
    _Row(
        "http2", "CPU per response over HTTP/2, ten streams on each of eight connections",
        _streams, 3_000, _HTTP2, {"hypercorn": 0.5}, H2LOAD,
    ),
    _Row("socket", "CPU per echoed message of a WebSocket", _echo, 5_000, _PYTHON, {"uvicorn": 1.0}),
    _Row(
        "1k", "CPU per static file of 1 KB",
        partial(_file, size=1 << 10), 5_000, _files(1 << 10), {"nginx": 1.5}, H2LOAD,
    ),
    _Row(
        "1m", "CPU per static file of 1 MB",
        partial(_file, size=1 << 20), 500, _files(1 << 20), {"nginx": 1.5}, H2LOAD,
    ),
    _Row(
        "memory", "Proportional memory of a web server after a thousand requests",
        _thousand, 0, _PYTHON, {"uvicorn": 1.0}, H2LOAD,
    ),
)  # fmt: skip


def web() -> Sequence[Comparison]:
    """Return the comparisons."""
    return [_comparison(row) for row in _ROWS]


def _comparison(row: _Row) -> Comparison:
    figures = _CPU if row.amount else _MEMORY
    measure = partial(_cpu, row.load, row.amount) if row.amount else partial(_memory, row.load)
    return Comparison(
        f"web-{row.key}",
        row.title,
        figures,
        [
            Contestant(name, partial(measure, start), row.missing or (NGINX if name == "nginx" else ""))
            for name, start in row.servers.items()
        ],
        [Goal(row.title, next(iter(figures)), "tamed", peer, most) for peer, most in row.goals.items()],
        page="web",
    )
