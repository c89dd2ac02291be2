"""The lines of the access log: short, as Apache writes them, or as JSON."""

import json
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from tamed.log.logger import AccessLog, own_logger
from tamed.web.asgi import Scope

__all__ = ["AccessFormat", "AccessWriter", "access_writer", "client_text"]

AccessFormat = Literal["short", "common", "combined", "json"]

_LONGEST: Final = 1000
"""Characters of a JSON line: `AccessLog` would truncate a longer one, which would make it invalid."""


AccessWriter = Callable[[Scope, int, int, float], None]
"""Logs an answered request: its scope, the status, the bytes of the sent body, and the seconds from the end
of the request's headers to the end of the answer."""


def access_writer(kind: AccessFormat | None) -> AccessWriter | None:
    """Return the function that logs requests to ``web.access`` in a format; None for no access log."""
    if kind is None:
        return None
    log = AccessLog(own_logger("web.access"))
    line = {"short": _short, "common": _common, "combined": _combined, "json": _json}[kind]
    add = log.add
    return lambda scope, status, size, seconds: add(line(scope, status, size, seconds))


def client_text(client: tuple[str, int] | None) -> str:
    """Return a client as the log has it: its address and port, or ``unix``."""
    if client is None:
        return "unix"
    host, port = client  # `address_text` takes four times as long, for each request
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _short(scope: Scope, status: int, _: int, __: float) -> str:
    peer = client_text(scope["client"])
    # The scope of a WebSocket has no method.
    return f'{peer} - "{scope.get("method", "GET")} {_target(scope)} HTTP/{scope["http_version"]}" {status}'


def _common(scope: Scope, status: int, size: int, _: float) -> str:
    client = scope["client"]
    request = f"{scope.get('method', 'GET')} {_quoted(_target(scope))} HTTP/{scope['http_version']}"
    host = "unix" if client is None else client[0]
    return f'{host} - - [{_clf_time(int(time.time()))}] "{request}" {status} {size or "-"}'


def _combined(scope: Scope, status: int, size: int, seconds: float) -> str:
    referer, agent = (_quoted(_header(scope, name) or "-") for name in (b"referer", b"user-agent"))
    return f'{_common(scope, status, size, seconds)} "{referer}" "{agent}"'


def _json(scope: Scope, status: int, size: int, seconds: float) -> str:
    line = ""
    for most in (_LONGEST, 256, 64):  # the client chooses the length of its texts
        line = json.dumps(
            {**_fields(scope, most), "status": status, "bytes": size, "seconds": round(seconds, 6)},
            separators=(",", ":"),
        )
        if len(line) <= _LONGEST:
            break
    return line


def _fields(scope: Scope, most: int) -> dict[str, Any]:
    client = scope["client"]
    return {
        "client": None if client is None else client[0],
        "port": None if client is None else client[1],
        "method": scope.get("method", "GET"),
        "target": _target(scope)[:most],
        "version": scope["http_version"],
        "host": (_header(scope, b"host") or "")[:most],
        "referer": (_header(scope, b"referer") or "")[:most],
        "agent": (_header(scope, b"user-agent") or "")[:most],
    }


def _target(scope: Scope) -> str:
    target: str = scope["raw_path"].decode("ascii", "backslashreplace")
    query = scope["query_string"]
    return f"{target}?{query.decode('ascii', 'backslashreplace')}" if query else target


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: str = value.decode("latin-1")
            return found
    return None


def _quoted(text: str) -> str:
    """Return a text that cannot end its field, without control characters, as Apache writes it."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"')
    return safe.encode("ascii", "backslashreplace").decode("ascii")


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _clf_time(second: int) -> str:
    """Return the time as Apache's ``%t`` has it, in UTC; month names do not depend on the locale."""
    now = time.gmtime(second)
    return f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}" + time.strftime(":%H:%M:%S +0000", now)
