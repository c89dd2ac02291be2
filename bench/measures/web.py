"""The web: what a request, a message of a WebSocket and a file cost servers in Python, and nginx."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load.http import H2LOAD, echo, requests
from bench.peers import NGINX, granian, gunicorn, hypercorn, nginx_files, tamed_files, tamed_web, uvicorn
from bench.process import Process

__all__ = ["web"]

_HELLO = "web_hello:asgi"
_CPU = {
    "cpu": Figure("CPU each", "us", 1e6, 1),
    "failures": Figure("failed", "", 1, 0, exact=True),
}
_MEMORY = {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)}

Start = Callable[[Path], Process]
"""Makes a server; gets a folder for its files."""

Load = Callable[[int, int], int]
"""Makes requests of the server at a port, so many; returns how many were answered as they should be."""


def web() -> Sequence[Comparison]:
    """Return the comparisons."""
    http1: Load = lambda port, count: requests(port, "/", count, clients=64)  # noqa: E731
    http2: Load = lambda port, count: requests(port, "/", count, clients=8, streams=10)  # noqa: E731
    plain = _servers()
    return [
        _comparison(
            "web-kept",
            "CPU per HTTP response on kept connections",
            partial(_cpu, http1, 5_000),
            {
                **plain,
                # Not hypercorn: its status line has no phrase, and h2load takes that for a failure.
                "gunicorn": lambda _: gunicorn(_HELLO, "asgi"),
            },
            {"uvicorn": 0.6, "granian": 1.25},
            missing=H2LOAD,
        ),
        _comparison(
            "web-log",
            "CPU per HTTP response on kept connections, with an access log",
            partial(_cpu, http1, 5_000),
            _servers(access_log=True),
            {"uvicorn": 0.35, "granian": 0.6},
            missing=H2LOAD,
        ),
        _comparison(
            "web-http2",
            "CPU per response over HTTP/2, ten streams on each of eight connections",
            partial(_cpu, http2, 3_000),
            {
                "tamed": lambda _: tamed_web(_HELLO, "--http2"),
                "hypercorn": lambda _: hypercorn(_HELLO),
                "granian": lambda _: granian(_HELLO, "--http", "2"),
            },
            {"hypercorn": 0.5},
            missing=H2LOAD,
        ),
        _comparison(
            "web-socket",
            "CPU per echoed message of a WebSocket",
            partial(_cpu, lambda port, count: echo(port, count, clients=16), 5_000),
            {**plain, "hypercorn": lambda _: hypercorn(_HELLO)},
            {"uvicorn": 1.0},
        ),
        _files("1k", "1 KB", 1024, 5_000),
        _files("1m", "1 MB", 1024 * 1024, 500),
        _comparison(
            "web-memory",
            "Proportional memory of a web server after a thousand requests",
            partial(_memory, http1),
            plain,
            {"uvicorn": 1.0},
            missing=H2LOAD,
            figures=_MEMORY,
        ),
    ]


def _servers(*, access_log: bool = False) -> Mapping[str, Start]:
    return {
        "tamed": lambda _: tamed_web(_HELLO, access_log=access_log),
        "uvicorn": lambda _: uvicorn(_HELLO, access_log=access_log),
        "granian": lambda _: granian(_HELLO, *(["--access-log"] if access_log else [])),
    }


def _files(key: str, size_text: str, size: int, count: int) -> Comparison:
    load: Load = lambda port, count: requests(port, "/file", count, clients=32)  # noqa: E731
    return _comparison(
        f"web-{key}",
        f"CPU per static file of {size_text}",
        partial(_cpu, load, count),
        {"tamed": partial(_with_file, size, tamed_files), "nginx": partial(_with_file, size, nginx_files)},
        {"nginx": 1.5},
        missing=H2LOAD or NGINX,
    )


def _with_file(size: int, start: Start, folder: Path) -> Process:
    (folder / "site").mkdir()
    (folder / "site" / "file").write_bytes(bytes(size))
    return start(folder)


def _comparison(
    key: str,
    title: str,
    measure: Callable[[Start], Figures],
    servers: Mapping[str, Start],
    goals: Mapping[str, float],
    *,
    missing: str = "",
    figures: Mapping[str, Figure] = _CPU,
) -> Comparison:
    return Comparison(
        key,
        title,
        figures,
        [Contestant(name, partial(measure, start), missing) for name, start in servers.items()],
        [Goal(title, next(iter(figures)), "tamed", peer, most) for peer, most in goals.items()],
    )


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
