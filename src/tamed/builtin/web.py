"""Files or a Python application over HTTP/1.1, as a plugin."""

import ipaddress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamed.builtin._rooted import DirectoryService, RootedDirectory
from tamed.builtin._web.application import Forwarded, Interface, Lifespan, as_asgi, load
from tamed.builtin._web.compat import server_config
from tamed.builtin._web.files import Files
from tamed.builtin._web.protocol import HttpLimits, HttpProtocol, PendingRequests
from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.net.stream import ProtocolServer
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration, Size
from tamed.service.service import MultiService, Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Options", "web"]


@dataclass
class Options:
    """The options of ``web``."""

    root: Path | None = option(None, "The directory to serve; nothing outside of it can be reached.")
    app: str | None = option(None, "The application to serve, as PACKAGE.MODULE:VARIABLE.", metavar="NAME")
    app_dir: Path | None = option(None, "A folder to look for the application in, beside what is installed.")
    wsgi: bool | None = option(None, "The application speaks WSGI, or does not; detected by default.")
    threads: int = option(10, "Requests that a WSGI application serves at a time.", ge=1)
    index: str = option("index.html", "The file that is served for a directory.")
    dot_files: bool = option(False, "Serve files and directories whose names begin with a dot, too.")
    port: int = option(8000, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    trust: list[str] = option([], "A proxy, or a network of them, whose X-Forwarded headers are believed.")
    access_log: bool = option(True, "Log every request.")
    max_connections: int = option(1000, "Connections that are open at a time; more clients wait.", ge=1)
    max_connections_per_address: int = option(200, "The same for one address.", ge=1)
    max_request_line: Size = option(Size("8 KiB"), "The longest target of a request.")
    max_head: Size = option(Size("32 KiB"), "The largest sum of a request's headers.")
    head_timeout: Duration = option(
        Duration("10s"), "The longest that a client may take to send the head of a request."
    )
    keep_alive: Duration = option(Duration("5s"), "How long an idle connection is kept for another request.")
    stall: Duration = option(Duration("1m"), "The longest that a client may pause in a request.")

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError: a mistake in the options
        for proxy in self.trust:
            ipaddress.ip_network(proxy)
        if (self.root is None) == (self.app is None):
            raise ValueError("name either a directory (root) or an application (app)")


@plugin
def web(options: Options) -> Service:
    """Files or a Python application (ASGI, WSGI) over HTTP."""
    application, service, state = _files(options) if options.root is not None else _application(options)
    requests = PendingRequests()
    config = server_config(  # `Forwarded`, also if it trusts nobody: uvicorn cannot take it for a factory
        Forwarded(application, options.trust), access_log=options.access_log, keep_alive=options.keep_alive
    )
    limits = HttpLimits(
        request_line=options.max_request_line,
        head=options.max_head,
        head_timeout=options.head_timeout,
        stall=options.stall,
    )
    server = ProtocolServer(
        options.listen or [TcpEndpoint(options.iface, options.port)],
        partial(HttpProtocol, config, requests.server_state, state, limits),
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
    )
    return MultiService("web", service, requests, server)


def _files(options: Options) -> "tuple[ASGIApp, Service, dict[str, Any]]":
    assert options.root is not None
    root = RootedDirectory(options.root, dot_files=options.dot_files)
    return Files(root, options.index), DirectoryService(root), {}


def _application(options: Options) -> "tuple[ASGIApp, Service, dict[str, Any]]":
    assert options.app is not None
    interface: Interface | None = None if options.wsgi is None else "wsgi" if options.wsgi else "asgi"
    application = as_asgi(load(options.app, options.app_dir), interface, options.threads)
    lifespan = Lifespan(application)
    return application, lifespan, lifespan.app_state
