"""Several applications in one web server, each below a path or on its own host."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tamed.errors import ApplicationFailed
from tamed.log.logger import own_logger
from tamed.web._lifespan import Lifespan
from tamed.web.asgi import ASGIApplication, Receive, Scope, Send

__all__ = ["Mount", "MountedApplications"]

log = own_logger("web")

_NOT_FOUND: Final = b"Not Found\n"


@dataclass(frozen=True)
class Mount:
    """An application and its place. Raises ValueError for an invalid path."""

    app: ASGIApplication
    path: str = ""
    """The prefix of its paths, such as ``/api``; empty for all."""
    host: str = ""
    """The host name in requests, without a port; empty for any."""
    lifespan: bool = True
    """Whether it supports ASGI's lifespan protocol."""
    no_websocket: str = ""
    """The reason for having no WebSockets, for the log; empty if it has them."""

    def __post_init__(self) -> None:
        if self.path and (not self.path.startswith("/") or self.path.endswith("/")):
            raise ValueError(
                f"expected a path with a slash at the beginning and none at the end, got {self.path!r}"
            )

    def __str__(self) -> str:
        return f"{self.host}{self.path or '/'}"


class MountedApplications:
    """Serves each request by the application at its place (ASGI).

    Of several matching ones, those with a host come first, and then the longest path. The application gets
    its path in ``root_path``, as if a proxy had sent the request. A request without a matching place is
    answered with 404. All applications are started in order, and stopped in reverse; if one fails to start,
    those before it are stopped, and the start fails. The lifespan ``state`` of an application is available to
    its own requests only.
    """

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._mounts = tuple(mounts)
        self._ordered = sorted(self._mounts, key=lambda each: (not each.host, -len(each.path)))
        self._states: dict[int, dict[str, Any]] = {}  # by the identity of the mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request by its application, or start and stop all applications."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        mount = self._mount_of(scope)
        is_websocket = scope["type"] == "websocket"
        if mount is None or (is_websocket and mount.no_websocket):
            if is_websocket:
                why = "no application is mounted there" if mount is None else mount.no_websocket
                path = scope["raw_path"].decode("ascii", "backslashreplace")
                log.info("no WebSocket at %s: %s", path, why)
            await _refuse(send, "websocket." if is_websocket else "")
            return
        state = {**scope["state"], **self._states.get(id(mount), {})}
        await mount.app(
            {**scope, "root_path": scope["root_path"] + mount.path, "state": state}, receive, send
        )

    def _mount_of(self, scope: Scope) -> Mount | None:
        path = scope["path"].removeprefix(scope["root_path"])
        host = _host_of(scope)
        for mount in self._ordered:
            is_below = path == mount.path or path.startswith(f"{mount.path}/")
            if is_below and mount.host in ("", host):
                return mount
        return None

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started: list[tuple[Mount, Lifespan]] = []
        failure = await self._start(started, scope["state"])
        if not failure:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        failures = [failure] if failure else []
        for mount, lifespan in reversed(started):
            try:
                await lifespan.stop()
            except ApplicationFailed as error:
                failures.append(f"{mount}: {error.why}")
        what = "startup" if failure else "shutdown"
        how = "failed" if failures else "complete"
        await send({"type": f"lifespan.{what}.{how}", "message": "; ".join(failures)})

    async def _start(self, started: list[tuple[Mount, Lifespan]], state: dict[str, Any]) -> str:
        """Start the applications; return the reason if one failed, else an empty text."""
        for mount in self._mounts:
            if not mount.lifespan:
                continue
            lifespan = Lifespan(mount.app, state)
            try:
                await lifespan.start()
            except ApplicationFailed as error:
                return f"{mount}: {error.why}"
            started.append((mount, lifespan))
            self._states[id(mount)] = lifespan.app_state
        return ""


def _host_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            return host if host.endswith("]") else host.rpartition(":")[0] or host
    return ""


async def _refuse(send: Send, kind: str) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_NOT_FOUND)),
    ]
    await send({"type": f"{kind}http.response.start", "status": 404, "headers": headers})
    await send({"type": f"{kind}http.response.body", "body": _NOT_FOUND})
