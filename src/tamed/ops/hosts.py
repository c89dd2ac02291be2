"""The host names by which clients may address the endpoint: protection against DNS rebinding.

A browser on this machine, or in its network, runs the scripts of any site. With DNS rebinding, a site gives
its own name the address of this endpoint, and its scripts may then read the answers. They still send the
site's name as ``Host``, which is no name of this daemon. An IP address as the host is safe.
"""

import ipaddress
import socket
from collections.abc import Iterable

__all__ = ["HostCheck"]


class HostCheck:
    """Checks the headers ``Host`` and ``Origin``. ``names`` are allowed besides those of this machine.

    With ``checks`` false, any host will do: no browser can connect, for example to a unix socket.
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
