"""How each contestant is started: ours, and those that it is measured beside."""

import os
import subprocess
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from shutil import which

from bench.process import BIN, HOST, POEM, PYTHON, Process, command, free_port, programs, tamed

__all__ = [
    "NGINX",
    "aiomisc",
    "granian",
    "gunicorn",
    "has_plugin",
    "loops",
    "minimal",
    "nginx",
    "tamed_application",
    "tamed_poetry",
    "tamed_web",
    "twistd",
    "uvicorn",
]

NGINX = "" if which("nginx") else "apt install nginx-light libnginx-mod-stream"
"""What is missing for nginx."""

_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_NGINX_COMMON = """
daemon off;
worker_processes {workers};
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 16384; }}
"""

_NGINX_STREAM = """
stream {{
    log_format poetry '$time_iso8601 sending $bytes_sent bytes of poetry to $remote_addr:$remote_port';
    access_log {access_log};
    server {{ listen 127.0.0.1:{port} backlog=4096; return "{poem}"; }}
}}
"""


def has_plugin(name: str) -> bool:
    """Tell whether a plugin of ours is installed."""
    return any(one.name == name for one in entry_points(group="tamed.plugins"))


@cache
def _minimal() -> Path:
    source = programs / "minimal.c"
    program = programs.parents[1] / "build/bench/minimal"
    program.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


def minimal() -> Process:
    """Return the C server."""
    port = free_port()
    return Process(command(_minimal(), port, POEM), port)


def loops(kind: str, loop: str) -> Process:
    """Return a bare event loop, with the handler that its kind says."""
    port = free_port()
    return Process(command(PYTHON, programs / "loops.py", kind, loop, port, POEM), port)


def nginx(folder: Path, *, access_log: bool = False, workers: int = 1) -> Process:
    """Return nginx with a poem in its configuration. The folder is for its files."""
    port = free_port()
    poem = POEM.read_text().replace("\\", "\\\\").replace('"', '\\"')
    text = f"load_module {_MODULE};\n" if _MODULE.exists() else ""
    text += _NGINX_COMMON.format(workers=workers, user=_user(), folder=folder)
    log = f"{folder}/access.log poetry" if access_log else "off"
    text += _NGINX_STREAM.format(access_log=log, port=port, poem=poem)
    configuration = folder / f"nginx-{port}.conf"
    configuration.write_text(text)
    return Process(command("nginx", "-p", folder, "-c", configuration), port)


def _user() -> str:
    return "root" if os.geteuid() == 0 else str(os.environ.get("USER", "nobody"))


def twistd(kind: str, folder: Path, *, log: str = "", backlog: int = 4096) -> Process:
    """Return twistd in the foreground; ``fastpoetry.tac`` says which kinds there are.

    It always has a log file of its own: twistd rotates what it is given, also what is no file.
    """
    port = free_port()
    environment = {"BENCH_KIND": kind, "BENCH_PORT": str(port), "BENCH_BACKLOG": str(backlog)}
    log = log or f"{folder}/twistd-{port}.log"
    options = ["--nodaemon", f"--pidfile={folder}/twistd-{port}.pid", f"--logfile={log}"]
    words = command(BIN / "twistd", *options, "-y", programs / "fastpoetry.tac")
    return Process(words, port, environment=environment)


def aiomisc() -> Process:
    """Return aiomisc's TCP server."""
    port = free_port()
    return Process(command(PYTHON, programs / "aiomisc_poetry.py", port, POEM), port)


def tamed_poetry(*options: str) -> Process:
    """Return our own fast poetry in the foreground, with options of the daemon."""
    port = free_port()
    return Process(tamed("run", *options, "fastpoetry", "--port", port), port)


def tamed_application(kind: str, *options: str) -> Process:
    """Return one of the applications in ``programs/services.py``, in the foreground, without a log."""
    port = free_port()
    environment = {"BENCH_KIND": kind, "BENCH_PORT": str(port)}
    words = tamed("run", "--log-level", "warning", *options, programs / "services.py")
    return Process(words, port, environment=environment)


def tamed_web(*options: str) -> Process:
    """Return our web server with our ASGI application, in the foreground, without a log."""
    port = free_port()
    settings = ["--listen", f"{HOST}:{port}", "--app", "web_poetry:asgi", "--app-dir", programs, *options]
    settings += ["--max-connections-per-address", "1000", "--no-access-log"]
    return Process(tamed("run", "--log-level", "warning", "web", *settings), port)


def granian(*options: str) -> Process:
    """Return granian with one worker and our ASGI application."""
    port = free_port()
    settings = ["--interface", "asgi", "--workers", "1", "--host", HOST, "--port", port, *options]
    return Process(command(BIN / "granian", *settings, "web_poetry:asgi"), port, folder=programs)


def gunicorn(*options: str) -> Process:
    """Return gunicorn with one worker and our WSGI application."""
    port = free_port()
    settings = ["--workers", "1", "--bind", f"{HOST}:{port}", "--backlog", "4096", *options]
    return Process(command(BIN / "gunicorn", *settings, "web_poetry:wsgi"), port, folder=programs)


def uvicorn(*options: str) -> Process:
    """Return uvicorn with one process, or what the options say, and our ASGI application."""
    port = free_port()
    settings = ["--host", HOST, "--port", port, "--no-access-log", "--backlog", "4096", *options]
    return Process(command(BIN / "uvicorn", *settings, "web_poetry:asgi"), port, folder=programs)
