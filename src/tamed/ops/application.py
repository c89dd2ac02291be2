"""The operations endpoint as an ASGI application: its paths, access control, and the forms of the status."""

import gzip
import ipaddress
import json
import socket
import time
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs

from tamed._os.text import counted, shown
from tamed.log.layout import rfc3339
from tamed.ops.exposition import metrics_of, text_of
from tamed.ops.health import PROBES, report
from tamed.ops.observer import Observer
from tamed.ops.page import Page, Selection, Streams
from tamed.ops.source import NoAnswer, Source
from tamed.web.asgi import Receive, Scope, Send

__all__ = ["SCHEMA_VERSION", "HostCheck", "OpsApplication", "status_text", "to_public"]

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_HTML: Final = "text/html; charset=utf-8"
_EVENTS: Final = "text/event-stream"
_LEVEL: Final = 1  # of compression: 10 % of the time of the default, for 1 % more bytes
_PATHS: Final = "/, /livez, /readyz, /startupz, /status, /metrics"

SCHEMA_VERSION: Final = 1
"""The version of the JSON. It increases when a field changes its meaning or is removed."""

_OWN: Final = ("answer", "descriptors")  # fields of the channel


class HostCheck:
    """Checks the headers ``Host`` and ``Origin``: protection against DNS rebinding.

    A browser on this machine, or in its network, runs the scripts of any site. With DNS rebinding, a site
    gives its own name the address of this endpoint, and its scripts may then read the answers. They still
    send the site's name as ``Host``, which is no name of this daemon. An IP address as the host is safe.

    ``names`` are allowed besides those of this machine. With ``checks`` false, any host will do: no browser
    can connect, for example to a unix socket.
    """

    def __init__(self, names: Iterable[str] = (), *, checks: bool = True) -> None:
        here = socket.gethostname()
        self._names = {name.lower().rstrip(".") for name in ("localhost", here, *names)}
        self._checks = checks

    def refusal(self, host: str | None, origin: str | None) -> str:
        """Return the reason for refusing a request, or an empty text. Programs may send neither header."""
        if not self._checks:
            return ""
        if host is not None and not self._is_ours(host):
            return "unknown host name; allow it with --ops-host"
        if origin is not None and not self._is_ours(origin.partition("://")[2]):
            return "pages of other sites have no access"
        return ""

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower().rstrip(".")
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class OpsApplication:
    """Answers GET and HEAD. It is read-only: no request changes anything."""

    def __init__(self, source: Source, hosts: HostCheck, observer: Observer) -> None:
        self._source = source
        self._hosts = hosts
        self._observer = observer
        self._page = Page()
        self._streams = Streams(observer, self._page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        answer = _Answer(scope, send)
        headers = {key.decode("latin-1").lower(): each.decode("latin-1") for key, each in scope["headers"]}
        if why := self._hosts.refusal(headers.get("host"), headers.get("origin")):
            await answer(403, f"{why}\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(405, "only GET and HEAD\n", allow="GET, HEAD")
        else:
            try:
                await self._serve(scope, receive, answer, headers)
            except NoAnswer as error:
                await answer(503, f"{error}\n")

    async def _serve(
        self, scope: Scope, receive: Receive, answer: "_Answer", headers: dict[str, str]
    ) -> None:
        path = scope["path"].strip("/")
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if path in PROBES:
            checks = PROBES[path](await self._source.health())
            excluded = query.get("exclude", ())
            passes, text = report(path, checks, verbose="verbose" in query, excluded=excluded)
            await answer(200 if passes else 503, text)
        elif path == "status":
            status = to_public(await self._source.status(), rfc3339(time.time()))
            if _wants_text(headers, query):
                await answer(200, status_text(status))
            else:
                await answer(200, json.dumps(status, indent=1) + "\n", _JSON)
        elif path == "metrics":
            metrics = metrics_of(*await self._source.metrics())
            body, kind = text_of(metrics, headers.get("accept", ""), query.get("name[]", ()))
            if _takes_gzip(headers):
                await answer(200, gzip.compress(body, _LEVEL), kind, **{"content-encoding": "gzip"})
            else:
                await answer(200, body, kind)
        elif not path:
            view = await self._observer.fresh()
            text = self._page.whole(view, Selection(query))
            await answer(503 if view.trouble else 200, text, _HTML, **self._page.headers)
        elif path == "stream":
            await self._serve_stream(scope, receive, answer)
        else:
            await answer(404, f"expected one of {_PATHS}\n")

    async def _serve_stream(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if self._streams.are_full:
            await answer(503, "too many open pages\n")
            return
        await answer.begin(200, _EVENTS)
        if scope["method"] != "HEAD":
            await self._streams.serve(receive, answer.pass_on)
        else:
            await answer.pass_on({"type": "http.response.body", "body": b""})


def _wants_text(headers: dict[str, str], query: dict[str, list[str]]) -> bool:
    """Return whether to answer with text: for curl and the like, unless JSON is requested."""
    if "format" in query:
        return query["format"][-1] == "text"
    accept = headers.get("accept", "*/*")
    return "json" not in accept and (
        "text/plain" in accept or headers.get("user-agent", "").lower().startswith(("curl/", "wget/"))
    )


def _takes_gzip(headers: dict[str, str]) -> bool:
    for coding in headers.get("accept-encoding", "").split(","):
        name, _, quality = coding.partition(";")
        if name.strip().lower() == "gzip":
            return not quality or quality.strip(" q=0.") != ""  # a quality of zero refuses it
    return False


class _Answer:
    """Sends one answer; to HEAD without its body."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._is_head = scope["method"] == "HEAD"
        self._send = send

    async def __call__(self, status: int, text: str | bytes, kind: str = _TEXT, **more: str) -> None:
        body = text if isinstance(text, bytes) else text.encode(errors="replace")
        await self.begin(status, kind, **{"content-length": str(len(body))}, **more)
        await self._send({"type": "http.response.body", "body": b"" if self._is_head else body})

    async def begin(self, status: int, kind: str, **more: str) -> None:
        """Send the head of an answer."""
        headers = {
            "content-type": kind,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **more,
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def pass_on(self, message: Any) -> None:
        """Forward a message of another application."""
        if self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def to_public(status: dict[str, Any], now: str) -> dict[str, Any]:
    """Return the supervisor's answer with the version and the time, an RFC 3339 text."""
    fields = {name: value for name, value in status.items() if name not in _OWN}
    return {"schema_version": SCHEMA_VERSION, "time": now, **fields}


def status_text(status: dict[str, Any]) -> str:
    """Return the status for a person: the daemon, its endpoints, its workers and their services."""
    lines = [_daemon_line(status)]
    lines += [f"listening on {each}" for each in status["endpoints"]]
    lines += [
        f"the certificate of {each['endpoint']} ends {each['ends'] or 'at an unknown time'}: {each['file']}"
        for each in status["certificates"]
    ]
    lines += [
        f"the check of {each['name']} fails: {each['why']}" for each in status["checks"] if each["failing"]
    ]
    if status["last_error"]:
        lines.append(f"last error, {status['last_error_at']}: {status['last_error']}")
    lines += [_role_line(role) for role in status["roles"]]
    for worker in status["workers"]:
        lines.append(_worker_line(worker))
        if "tree" in worker:
            lines += _tree_lines(worker["tree"], 1)
    return "\n".join(shown(line) for line in lines) + "\n"


def _daemon_line(status: dict[str, Any]) -> str:
    return (
        f"{status['name']} is {status['state']}: pid {status['pid']}, up {status['uptime']:.0f} s, "
        f"generation {status['generation']}, {status['ready']} of {status['wanted']} workers ready, "
        f"{counted(status['restarts'], 'restart')}"
    )


def _role_line(role: dict[str, Any]) -> str:
    if role["state"] == "standby":
        return f"role {role['role']} is on another machine, {role['holder']}, for {role['age']:.0f} s"
    if role["pid"] is None:
        return f"role {role['role']} is vacant for {role['age']:.0f} s"
    stops = ", which is resigning it" if role["state"] == "resigning" else ""
    return f"role {role['role']} is held by worker {role['worker']} (pid {role['pid']}){stops}"


def _worker_line(worker: dict[str, Any]) -> str:
    memory = worker["memory"]
    size = "" if memory is None else f", {memory / 2**20:.0f} MiB"
    connections = f", {counted(worker['connections'], 'connection')}" if "connections" in worker else ""
    return (
        f"worker {worker['number']} (pid {worker['pid']}, generation {worker['generation']}) is "
        f"{worker['state']}, up {worker['uptime']:.0f} s{size}{connections}"
    )


def _tree_lines(tree: dict[str, Any], depth: int) -> list[str]:
    text = f"{'  ' * depth}{tree['name']}: {tree['state']}"
    if tree["restarts"]:
        text += f", {counted(tree['restarts'], 'restart')}"
    if tree["summary"]:
        text += f", {tree['summary']}"
    return [text, *(line for child in tree["children"] for line in _tree_lines(child, depth + 1))]
