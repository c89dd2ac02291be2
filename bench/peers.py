"""How each contestant is started: ours, and those that it is measured beside."""

import os
import subprocess
from functools import cache
from pathlib import Path
from shutil import which

from bench.process import BIN, HOST, POEM, PYTHON, Process, command, free_port, programs, tamed

__all__ = [
    "NGINX",
    "aiomisc",
    "granian",
    "granian_files",
    "gunicorn",
    "hypercorn",
    "loops",
    "minimal",
    "nginx",
    "nginx_files",
    "nginx_text",
    "tamed_application",
    "tamed_files",
    "tamed_poetry",
    "tamed_web",
    "twistd",
    "uvicorn",
    "uvicorn_files",
]

NGINX = "" if which("nginx") else "apt install nginx-light libnginx-mod-stream"
"""What is missing for nginx."""

_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_HELLO = "web_hello:asgi"

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


_NGINX_WEB = """
http {{
    access_log {access_log};
    sendfile on;
    keepalive_requests 1000000;
    default_type text/plain;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port} backlog=4096{http2}; {served} }}
}}
"""


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
    return _nginx(folder, port, text)


def nginx_files(folder: Path) -> Process:
    """Return nginx that serves the files in ``site`` in a folder, from page to client in the kernel."""
    return _nginx_web(folder, f"root {folder}/site;")


def nginx_text(folder: Path, *, access_log: bool = False, http2: bool = False) -> Process:
    """Return nginx with the text of ``web_hello`` in its configuration: what a server in C takes."""
    served = 'location / { return 200 "Hello world\\n"; }'
    return _nginx_web(folder, served, access_log=access_log, http2=http2)


def _nginx_web(folder: Path, served: str, *, access_log: bool = False, http2: bool = False) -> Process:
    port = free_port()
    log, more = f"{folder}/access.log" if access_log else "off", " http2" if http2 else ""
    text = _NGINX_COMMON.format(workers=1, user=_user(), folder=folder)
    text += _NGINX_WEB.format(folder=folder, port=port, access_log=log, http2=more, served=served)
    return _nginx(folder, port, text)


def _nginx(folder: Path, port: int, text: str) -> Process:
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


def tamed_web(*options: str, access_log: bool = False) -> Process:
    """Return our web server with ``web_hello``, in the foreground."""
    port = free_port()
    settings = ["--listen", f"{HOST}:{port}", "--app", _HELLO, "--app-dir", programs, *options]
    settings += ["--max-connections-per-address", "1000", *([] if access_log else ["--no-access-log"])]
    level = [] if access_log else ["--log-level", "warning"]
    return Process(tamed("run", *level, "web", *settings), port)


def tamed_files(folder: Path) -> Process:
    """Return our web server with the files in ``site`` in a folder, without a log."""
    port = free_port()
    settings = ["--listen", f"{HOST}:{port}", "--root", folder / "site", "--no-access-log"]
    return Process(tamed("run", "--log-level", "warning", "web", *settings), port)


def granian(*options: object) -> Process:
    """Return granian with one worker and ``web_hello``."""
    port = free_port()
    settings = ["--interface", "asgi", "--workers", "1", "--host", HOST, "--port", port, "--backlog", "4096"]
    return Process(command(BIN / "granian", *settings, *options, _HELLO), port, folder=programs)


def granian_files(folder: Path) -> Process:
    """Return granian that serves the files in ``site/static`` in a folder, by its own server in Rust."""
    return granian("--static-path-route", "/static", "--static-path-mount", folder / "site/static")


def gunicorn(*options: str) -> Process:
    """Return gunicorn with one worker for ASGI, and ``web_hello``."""
    port = free_port()
    settings = ["--workers", "1", "--worker-class", "asgi", "--bind", f"{HOST}:{port}", "--backlog", "4096"]
    return Process(command(BIN / "gunicorn", *settings, *options, _HELLO), port, folder=programs)


def hypercorn(*options: str) -> Process:
    """Return hypercorn with one process on uvloop, and ``web_hello``."""
    port = free_port()
    settings = ["--workers", "0", "--worker-class", "uvloop", "--bind", f"{HOST}:{port}", "--backlog", "4096"]
    return Process(command(BIN / "hypercorn", *settings, *options, _HELLO), port, folder=programs)


def uvicorn(application: str = _HELLO, *, access_log: bool = False, site: object = "") -> Process:
    """Return uvicorn with one process, and an ASGI application."""
    port = free_port()
    settings = ["--host", HOST, "--port", port, "--backlog", "4096"]
    settings += [] if access_log else ["--no-access-log"]
    words = command(BIN / "uvicorn", *settings, application)
    return Process(words, port, folder=programs, environment={"BENCH_SITE": str(site)})


def uvicorn_files(folder: Path) -> Process:
    """Return uvicorn with Starlette's application for files, for those in ``site`` in a folder."""
    return uvicorn("web_files:asgi", site=folder / "site")
