"""Files or a Python application over HTTP and WebSocket, as a plugin."""

import importlib
import inspect
import ipaddress
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

from tamed._os.variables import VariableName, missing_module
from tamed.builtin._rooted import DirectoryService, RootedDirectory
from tamed.errors import ApplicationFailed, ConfigurationError, MissingInput, reason
from tamed.log.logger import exit_logged, own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint
from tamed.net.proxy_header import Network
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration, Size
from tamed.service.service import MultiService, Service
from tamed.web.asgi import ASGIApplication
from tamed.web.limits import Http2Limits, HttpLimits, WebSocketLimits
from tamed.web.mounts import Mount, MountedApplications
from tamed.web.server import AccessFormat, WebServer
from tamed.web.wsgi import WsgiApplication

__all__ = ["Options", "interface_of", "load", "web"]

log = own_logger("web")


class MountAt(NamedTuple):
    """A mount point and its content: an application, or a folder if the name has no colon."""

    host: str
    path: str
    what: str | Path

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[HOST]/PATH=APP`` or ``[HOST]/PATH=FOLDER``. Raises ValueError, which names the form."""
        place, _, what = text.partition("=")
        host, slash, path = place.partition("/")
        if not slash or not what or "\0" in text:
            raise ValueError(f"expected [HOST]/PATH=APP, such as /api=poems:application, got {text!r}")
        return cls(
            host.lower(), f"/{path}".rstrip("/"), what if ":" in what and "/" not in what else Path(what)
        )

    def relative_to(self, folder: Path) -> Self:
        """Return a copy with a relative path resolved from a folder."""
        return self._replace(what=folder / self.what if isinstance(self.what, Path) else self.what)

    def __str__(self) -> str:
        return f"{self.host}{self.path or '/'}={self.what}"


@dataclass
class Options:
    """The options of ``web``."""

    root: Path | None = option(None, "The directory to serve; nothing outside of it can be reached.")
    app: str | None = option(None, "The application to serve, as PACKAGE.MODULE:VARIABLE.", metavar="NAME")
    mount: list[MountAt] = option(
        [],
        "A further application or folder, for a path or a host.",
        metavar="[HOST]/PATH=WHAT",
    )
    factory: bool = option(False, "The application is a factory: a function that returns it.")
    app_dir: Path | None = option(
        None, "A folder in which the application is found, besides the installed packages."
    )
    wsgi: bool | None = option(None, "Whether the application is WSGI; detected by default.")
    threads: int = option(10, "Concurrent requests of a WSGI application.", ge=1)
    index: str = option("index.html", "The file that is served for a directory.")
    dot_files: bool = option(False, "Serve files and directories whose names begin with a dot, too.")
    precompressed: bool = option(False, "Serve NAME.br, NAME.zst or NAME.gz to clients that accept it.")
    fallback: str = option("", "The file that browsers get for a missing page.")
    port: int = option(8000, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    http2: bool = option(False, "Also serve HTTP/2.")
    max_streams: int = option(100, "Concurrent requests on an HTTP/2 connection.", ge=1)
    trust: list[str] = option(
        [],
        "A proxy or network whose X-Forwarded headers are trusted; unix: all clients of unix sockets.",
    )
    proxy_from: list[Network] = option(
        [], "Network, or unix, whose clients must send a PROXY header, which is trusted."
    )
    root_path: str = option("", "The path prefix that a proxy removes before it forwards a request.")
    access_log: bool = option(True, "Log every request.")
    access_log_format: AccessFormat = option("short", "The format of the access log.")
    max_connections: int = option(1000, "Maximum number of open connections; further clients wait.", ge=1)
    max_connections_per_address: int = option(200, "The same for one address.", ge=1)
    max_request_line: Size = option(Size("8 KiB"), "Maximum length of a request target.")
    max_head: Size = option(Size("32 KiB"), "Maximum size of a request's headers together.")
    head_timeout: Duration = option(
        Duration("10s"), "Longest time for a client to send the head of a request."
    )
    keep_alive: Duration = option(
        Duration("5s"), "Longest time to keep an idle connection for another request."
    )
    max_message: Size = option(Size("1 MiB"), "Maximum size of a WebSocket message.")
    ping_interval: Duration = option(
        Duration("20s"), "Interval of WebSocket pings, and the time to answer one."
    )
    stall: Duration = option(Duration("1m"), "Longest time without progress of a request.")

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        for proxy in self.trust:
            if proxy != "unix":
                ipaddress.ip_network(proxy)
        if self.proxy_from and any(isinstance(endpoint, TlsEndpoint) for endpoint in self.listen):
            raise ValueError("a PROXY header precedes TLS, so it cannot be read on a tls:// endpoint")
        if self.root_path and not self.root_path.startswith("/"):
            raise ValueError("root_path must begin with a slash")
        given = (self.root is not None) + (self.app is not None)
        if given > 1 or not (given or self.mount):
            raise ValueError("use either a directory (root) or an application (app)")

    def websocket_limits(self) -> WebSocketLimits:
        """Return the limits of WebSockets."""
        return WebSocketLimits(
            message=self.max_message,
            frame=self.max_message,
            ping_interval=self.ping_interval,
            pong_timeout=self.ping_interval,
        )

    def places(self) -> list[MountAt]:
        """Return all mount points with their content."""
        rest: str | Path | None = self.app if self.root is None else self.root
        return [*self.mount, *([] if rest is None else [MountAt("", "", rest)])]


@plugin
def web(options: Options) -> Service:
    """Files or a Python application (ASGI, WSGI) over HTTP."""
    folders: list[DirectoryService] = []
    mounts = [_mount(options, place, folders) for place in options.places()]
    (first, *others) = mounts
    if others or first.path or first.host:
        limits = options.websocket_limits()
        server = _server(options, MountedApplications(mounts), limits, lifespan=True, apart=bool(folders))
    else:
        sockets = first.no_websocket or options.websocket_limits()
        server = _server(options, first.app, sockets, lifespan=first.lifespan, apart=bool(folders))
    return MultiService("web", *folders, server) if folders else server


def _mount(options: Options, place: MountAt, folders: list[DirectoryService]) -> Mount:
    """Load an application, or add a service for a folder."""
    host, path, what = place
    if isinstance(what, Path):
        # With Starlette, which an application may not need.
        from tamed.builtin._web_files import Files, require_fallback

        def check() -> None:
            if options.fallback:
                require_fallback(options.fallback, options.index, [each.root for each in folders])

        root = RootedDirectory(what, dot_files=options.dot_files)
        name = "files" if not folders else f"files-{len(folders) + 1}"
        folders.append(DirectoryService(root, name, check))
        files = Files(root, options.index, precompressed=options.precompressed, fallback=options.fallback)
        app = cast(ASGIApplication, files)
        return Mount(app, path, host, lifespan=False, no_websocket="files are served")
    found = load(what, options.app_dir, factory=options.factory)
    is_wsgi = interface_of(found) == "wsgi" if options.wsgi is None else options.wsgi
    if is_wsgi:
        wsgi = WsgiApplication(found, options.threads)
        return Mount(wsgi, path, host, no_websocket="the application speaks WSGI")
    return Mount(found, path, host)


def _server(
    options: Options,
    application: ASGIApplication,
    websocket: WebSocketLimits | str,
    *,
    lifespan: bool,
    apart: bool,
) -> WebServer:
    return WebServer(
        application,
        options.listen or [TcpEndpoint(options.iface, options.port)],
        name="http" if apart else "web",
        lifespan=lifespan,
        websocket=websocket,
        limits=HttpLimits(
            request_line=options.max_request_line,
            head=options.max_head,
            head_timeout=options.head_timeout,
            keep_alive=options.keep_alive,
            stall=options.stall,
        ),
        http2=Http2Limits(streams=options.max_streams) if options.http2 else None,
        trusted=options.trust,
        proxy_from=[str(each) for each in options.proxy_from],
        access_log=options.access_log_format if options.access_log else None,
        root_path=options.root_path,
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
    )


def load(name: str, folder: Path | None = None, *, factory: bool = False) -> Any:
    """Import ``package.module:variable`` and return its value, or the result of calling it.

    It is called without arguments if ``factory`` is set, or if the name ends in ``()``. ``folder`` is
    searched last, so that it cannot hide an installed package. Raises ConfigurationError for a name of
    another form, MissingInput if there is no such module, and ApplicationFailed, with the exception as its
    cause, if it cannot be imported, has no such variable, or cannot be called.
    """
    what = f"web application {name!r}"
    variable = name.removesuffix("()")
    try:
        wanted = VariableName.parse(variable)
    except ValueError as error:
        raise ConfigurationError(what, str(error)) from None
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        with exit_logged(log, wanted.module, "while it was imported"):
            module = importlib.import_module(wanted.module)
    except Exception as error:
        if missing := missing_module(error, wanted.module):
            remedy = "install it, or add its folder with --app-dir"
            raise MissingInput(what, f"there is no module {missing!r}", remedy) from None
        raise ApplicationFailed(f"{wanted.module} raised while it was imported", reason(error)) from error
    try:
        found = wanted.value_in(module)
    except AttributeError:
        raise ApplicationFailed(what, f"{wanted.module} has no variable {wanted.variable!r}") from None
    if factory or variable != name:
        found = _made(what, found)
    if not callable(found):
        raise ApplicationFailed(what, f"it is {type(found).__name__}, which cannot be called")
    return found


def _made(what: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        raise ApplicationFailed(f"the factory of {what} raised", reason(error)) from error


def interface_of(application: Any) -> Literal["asgi", "wsgi"]:
    """Detect an application's interface: ASGI if it is a coroutine function, or takes three arguments.

    With two arguments it is WSGI. Raises ApplicationFailed for all others.
    """
    call = application if inspect.isroutine(application) else getattr(application, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(call):
        return "asgi"
    if _takes(application, 3):
        return "asgi"
    if _takes(application, 2):
        return "wsgi"
    remedy = "if it returns the application, use --factory" if _takes(application, 0) else "use --wsgi"
    raise ApplicationFailed(
        f"web application {application!r}", "its parameters are neither those of ASGI nor of WSGI", remedy
    )


def _takes(application: Any, arguments: int) -> bool:
    try:
        inspect.signature(application).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True
