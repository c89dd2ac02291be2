"""Where it listens: endpoints, sockets, servers, clients, TLS.

The names are loaded when they are first asked for (PEP 562), so that a supervisor can bind sockets
without importing asyncio.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.net._accept import Shortage, is_of_the_connection
    from tamed.net._access_log import AccessLog, LinesHandler
    from tamed.net._address_limit import client_network
    from tamed.net._backlog import DEFAULT_BACKLOG, effective_backlog, usable_backlog
    from tamed.net._bind import Address, Bound, bind, resolve
    from tamed.net._bind_unix import SocketFile, short_path
    from tamed.net._client import ClientService
    from tamed.net._datagram import DatagramServer
    from tamed.net._endpoint import (
        BadEndpoint,
        Endpoint,
        FdEndpoint,
        SystemdEndpoint,
        TcpEndpoint,
        TlsEndpoint,
        UnixEndpoint,
        address_text,
        as_endpoint,
    )
    from tamed.net._gate import Gate, GateKeeper
    from tamed.net._inherit import Inheritance, passed_descriptors, passed_to_this_process
    from tamed.net._listening import ListeningService
    from tamed.net._protocol import ProtocolServer
    from tamed.net._reply import ReplyServer
    from tamed.net._server import Server, ServerOptions
    from tamed.net._source import (
        Listener,
        LocalSource,
        SocketSource,
        Surroundings,
        current,
        install,
        using,
    )
    from tamed.net._stream import StreamServer
    from tamed.net._tls import renew, server_context
    from tamed.net._turn_away import turn_away

__all__ = [
    "DEFAULT_BACKLOG",
    "AccessLog",
    "Address",
    "BadEndpoint",
    "Bound",
    "ClientService",
    "DatagramServer",
    "Endpoint",
    "FdEndpoint",
    "Gate",
    "GateKeeper",
    "Inheritance",
    "LinesHandler",
    "Listener",
    "ListeningService",
    "LocalSource",
    "ProtocolServer",
    "ReplyServer",
    "Server",
    "ServerOptions",
    "Shortage",
    "SocketFile",
    "SocketSource",
    "StreamServer",
    "Surroundings",
    "SystemdEndpoint",
    "TcpEndpoint",
    "TlsEndpoint",
    "UnixEndpoint",
    "address_text",
    "as_endpoint",
    "bind",
    "client_network",
    "current",
    "effective_backlog",
    "install",
    "is_of_the_connection",
    "passed_descriptors",
    "passed_to_this_process",
    "renew",
    "resolve",
    "server_context",
    "short_path",
    "turn_away",
    "usable_backlog",
    "using",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "DEFAULT_BACKLOG": "._backlog",
            "AccessLog": "._access_log",
            "Shortage": "._accept",
            "is_of_the_connection": "._accept",
            "LinesHandler": "._access_log",
            "Address": "._bind",
            "BadEndpoint": "._endpoint",
            "Bound": "._bind",
            "ClientService": "._client",
            "DatagramServer": "._datagram",
            "Endpoint": "._endpoint",
            "FdEndpoint": "._endpoint",
            "Gate": "._gate",
            "GateKeeper": "._gate",
            "Inheritance": "._inherit",
            "Listener": "._source",
            "ListeningService": "._listening",
            "LocalSource": "._source",
            "ProtocolServer": "._protocol",
            "ReplyServer": "._reply",
            "Server": "._server",
            "ServerOptions": "._server",
            "SocketFile": "._bind_unix",
            "SocketSource": "._source",
            "StreamServer": "._stream",
            "Surroundings": "._source",
            "SystemdEndpoint": "._endpoint",
            "TcpEndpoint": "._endpoint",
            "TlsEndpoint": "._endpoint",
            "UnixEndpoint": "._endpoint",
            "address_text": "._endpoint",
            "as_endpoint": "._endpoint",
            "bind": "._bind",
            "client_network": "._address_limit",
            "current": "._source",
            "effective_backlog": "._backlog",
            "install": "._source",
            "passed_descriptors": "._inherit",
            "passed_to_this_process": "._inherit",
            "renew": "._tls",
            "resolve": "._bind",
            "server_context": "._tls",
            "short_path": "._bind_unix",
            "turn_away": "._turn_away",
            "usable_backlog": "._backlog",
            "using": "._source",
        },
    )


def __dir__() -> list[str]:
    return __all__
