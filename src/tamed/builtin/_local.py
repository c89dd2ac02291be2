"""Which endpoints only users of this machine can reach."""

import ipaddress

from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint

__all__ = ["is_local"]

_OTHERS = 0o007


def is_local(endpoint: Endpoint) -> bool:
    """Tell whether nobody but users of this machine can connect to what listens here.

    A unix socket must not be open to everybody either, so one in the abstract namespace, which has no mode,
    is not local, nor is a socket that another process made, of which nothing is known.
    """
    if isinstance(endpoint, UnixEndpoint):
        return not endpoint.path.startswith("@") and not (endpoint.mode or 0) & _OTHERS
    if isinstance(endpoint, TcpEndpoint | TlsEndpoint):
        return endpoint.host == "localhost" or _is_loopback(endpoint.host)
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
