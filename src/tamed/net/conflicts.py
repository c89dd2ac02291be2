"""Detection of servers with the same address, before any of them binds it.

Only a conflict on every machine counts. Host names are compared as texts, because they are not resolved here.
Port 0 and inherited sockets never conflict.
"""

import os
from collections.abc import Iterator
from itertools import combinations

from tamed.errors import ConfigurationError
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import ListeningService
from tamed.service.service import MultiService, Service

__all__ = ["conflicts"]

_LOCALHOST = ("127.0.0.1", "::1")


def conflicts(application: Service) -> Iterator[ConfigurationError]:
    """Yield an error for each two servers below a service that cannot both listen."""
    wanted = [
        (service.full_name, service.socket_kind, endpoint)
        for service in _servers(application)
        for endpoint in service.endpoints
    ]
    for (one, kind, endpoint), (other, other_kind, other_endpoint) in combinations(wanted, 2):
        if kind is other_kind and _is_same(endpoint, other_endpoint):
            why = f"{one} listens on {endpoint}"
            yield ConfigurationError(
                f"{other} cannot listen on {other_endpoint}", why, "choose another address"
            )


def _servers(service: Service) -> Iterator[ListeningService]:
    if isinstance(service, ListeningService):
        yield service
    if isinstance(service, MultiService):
        for child in service:
            yield from _servers(child)


def _is_same(one: Endpoint, other: Endpoint) -> bool:
    match one, other:
        case UnixEndpoint(), UnixEndpoint():
            return _path(one) == _path(other)
        case ((TcpEndpoint() | TlsEndpoint()), (TcpEndpoint() | TlsEndpoint())):
            return one.port == other.port != 0 and _overlap(one.host, other.host)
    return False


def _path(endpoint: UnixEndpoint) -> str:
    return endpoint.path if endpoint.abstract else os.path.normpath(endpoint.path)


def _overlap(one: str, other: str) -> bool:
    """Return whether two hosts share an address; an empty one is every address of both families."""
    if one == other or not (one and other):
        return True
    for host, another in ((one, other), (other, one)):
        if host == "localhost" and another in _LOCALHOST:
            return True
        if host == "0.0.0.0" and ":" not in another:  # noqa: S104 - it is compared, not bound
            return True
        if host == "::" and (":" in another or another == "localhost"):
            return True
    return False
