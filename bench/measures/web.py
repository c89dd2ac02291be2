"""The web: what a request, a message of a WebSocket and a file cost servers in Python, and nginx."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load.http import H2LOAD, echo, requests
from bench.peers import NGINX, granian, gunicorn, hypercorn, nginx_files, tamed_files, tamed_web, uvicorn
from bench.process import Process

__all__ = ["web"]

_HELLO = "web_hello:asgi"
_CPU: Final = {
    "cpu": Figure("CPU each", "us", 1e6, 1),
    "failures": Figure("failed", "", 1, 0, exact=True),
}
_MEMORY: Final = {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)}

Start = Callable[[Path], Process]
"""Makes a server; gets a folder for its files."""

Load = Callable[[int, int], int]
"""Makes requests of the server at a port, so many; returns how many were answered as they should be."""


class _Row(NamedTuple):
    key: str
    title: str
    load: Load
    times: int
    """Requests or messages of a run; 0 for a row of memory."""
    servers: Mapping[str, Start]
    """Ours first."""
    goals: Mapping[str, float]
    """How much we may take of what others take."""
    missing: str = H2LOAD


def _with_file(size: int, start: Start, folder: Path) -> Process:
    (folder / "site").mkdir()
    (folder / "site" / "file").write_bytes(bytes(size))
    return start(folder)


def _cpu(load: Load, count: int, start: Start) -> Figures:
    """Serve as fast as the clients ask; tell what each answer took."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        load(server.port, count // 10)
        before = server.cpu()
        right = load(server.port, count)
        used = server.cpu() - before
    return {"cpu": used / max(right, 1), "failures": max(count - right, 0)}


def _memory(load: Load, start: Start) -> Figures:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        load(server.port, 1000)
        return {"memory": server.memory()}


_kept: Load = partial(requests, path="/", clients=64)
_streams: Load = partial(requests, path="/", clients=8, streams=10)
_file: Load = partial(requests, path="/file", clients=32)
_echo: Load = partial(echo, clients=16)

_PLAIN: Final[Mapping[str, Start]] = {
    "tamed": lambda _: tamed_web(_HELLO),
    "uvicorn": lambda _: uvicorn(_HELLO),
    "granian": lambda _: granian(_HELLO),
}
# Not hypercorn: its status line has no phrase, and h2load takes that for a failure.
_ALL_HTTP1: Final = {**_PLAIN, "gunicorn": lambda _: gunicorn(_HELLO, "asgi")}
_LOGGING: Final[Mapping[str, Start]] = {
    "tamed": lambda _: tamed_web(_HELLO, access_log=True),
    "uvicorn": lambda _: uvicorn(_HELLO, access_log=True),
    "granian": lambda _: granian(_HELLO, "--access-log"),
}
_HTTP2: Final[Mapping[str, Start]] = {
    "tamed": lambda _: tamed_web(_HELLO, "--http2"),
    "hypercorn": lambda _: hypercorn(_HELLO),
    "granian": lambda _: granian(_HELLO, "--http", "2"),
}
_SOCKETS: Final = {**_PLAIN, "hypercorn": lambda _: hypercorn(_HELLO)}


def _files(size: int) -> Mapping[str, Start]:
    return {"tamed": partial(_with_file, size, tamed_files), "nginx": partial(_with_file, size, nginx_files)}


_ROWS: Final = (
    _Row(
        "kept", "CPU per HTTP response on kept connections",
        _kept, 5_000, _ALL_HTTP1, {"uvicorn": 0.6, "granian": 1.25},
    ),
    _Row(
        "log", "CPU per HTTP response on kept connections, with an access log",
        _kept, 5_000, _LOGGING, {"uvicorn": 0.35, "granian": 0.6},
    ),
    _Row(
        "http2", "CPU per response over HTTP/2, ten streams on each of eight connections",
        _streams, 3_000, _HTTP2, {"hypercorn": 0.5},
    ),
    _Row("socket", "CPU per echoed message of a WebSocket", _echo, 5_000, _SOCKETS, {"uvicorn": 1.0}, ""),
    _Row("1k", "CPU per static file of 1 KB", _file, 5_000, _files(1024), {"nginx": 1.5}, H2LOAD or NGINX),
    _Row("1m", "CPU per static file of 1 MB", _file, 500, _files(1 << 20), {"nginx": 1.5}, H2LOAD or NGINX),
    _Row(
        "memory", "Proportional memory of a web server after a thousand requests",
        _kept, 0, _PLAIN, {"uvicorn": 1.0},
    ),
)  # fmt: skip


def web() -> Sequence[Comparison]:
    """Return the comparisons."""
    return [_comparison(row) for row in _ROWS]


def _comparison(row: _Row) -> Comparison:
    figures = _CPU if row.times else _MEMORY
    measure = partial(_cpu, row.load, row.times) if row.times else partial(_memory, row.load)
    return Comparison(
        f"web-{row.key}",
        row.title,
        figures,
        [Contestant(name, partial(measure, start), row.missing) for name, start in row.servers.items()],
        [Goal(row.title, next(iter(figures)), "tamed", peer, most) for peer, most in row.goals.items()],
        page="web",
    )
