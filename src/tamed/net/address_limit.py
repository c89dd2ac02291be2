"""A limit for the open connections of one address, and a rate limit for log lines."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tamed.log.logger import own_logger
from tamed.net.accept import OnAccept

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["AddressLimit", "LogLimiter", "client_network", "plain_address"]

log = own_logger("tamed.net")

_PREFIX: Final = 64
"""The bits of an IPv6 address that count: a client with one address of such a network has all of them."""

_INTERVAL: Final = 1.0
"""Seconds after a log line in which more of the same are only counted."""


class AddressLimit:
    """Counts the connections of each peer address, and refuses those beyond ``most``.

    IPv6 addresses of the same /64 network count as one, and IPv4-mapped ones as the IPv4 address. A refused
    connection is closed at once. ``refused`` is the number of these; the first is logged with its address,
    and the following ones as a number, once a second. ``name`` is the server's, for the log.
    """

    def __init__(self, most: int) -> None:
        self.name = ""
        self.refused = 0
        self._most = most
        self._open: Counter[str] = Counter()
        self._log_limiter = LogLimiter(self._log_refused, self._log_more)

    def guard(self, on_accept: OnAccept) -> OnAccept:
        """Return a function that calls ``on_accept`` if the peer's address is below the limit."""
        open_by_address, most = self._open, self._most

        def accept_or_refuse(fd: int, address: Any) -> None:
            if open_by_address[_counted(address)] < most:
                on_accept(fd, address)
            else:
                os.close(fd)
                self._refused(address)

        return accept_or_refuse

    def enter(self, address: Any) -> None:
        """Add one to the connections of an address."""
        self._open[_counted(address)] += 1

    def leave(self, address: Any) -> None:
        """Subtract one from the connections of an address."""
        counted = _counted(address)
        self._open[counted] -= 1
        if not self._open[counted]:
            del self._open[counted]

    def close(self) -> None:
        """Log the refused connections that were only counted so far."""
        self._log_limiter.close()

    def _refused(self, address: Any) -> None:
        self.refused += 1
        self._log_limiter.add(address)

    def _log_refused(self, address: Any) -> None:
        peer = _counted(address)
        log.warning("%s refuses a connection from %s, which has %d open", self.name, peer, self._most)

    def _log_more(self, count: int) -> None:
        log.warning("%s has refused %d more", self.name, count)


def client_network(host: str) -> str:
    """Return the network of a client's host, for limits: all addresses that one client may have.

    For an IPv4 address that is the address itself (also in its IPv6-mapped form), and for an IPv6 address its
    /64 network, because a client with one address of it has all. Another text, as for a unix socket, is
    returned unchanged.
    """
    if ":" not in host:
        return host
    from ipaddress import IPv6Network  # not at the top: few servers limit addresses

    try:
        address = plain_address(host)
    except ValueError:
        return host
    return str(address) if address.version == 4 else str(IPv6Network((address.packed, _PREFIX), strict=False))


def plain_address(host: str) -> "IPv4Address | IPv6Address":
    """Return an IP address without its zone, and an IPv4-mapped one as IPv4. Raises ValueError for others."""
    from ipaddress import ip_address

    address = ip_address(host.partition("%")[0])
    return (address.ipv4_mapped or address) if address.version == 6 else address


def _counted(address: Any) -> str:
    """Return the network of an address as accept(2) returns it."""
    return client_network(address[0])


class LogLimiter:
    """A rate limit for log lines: the first event is logged, the following ones as a number, once a second.

    ``log_first`` is called with the event, and ``log_more`` with the number since the last call.
    """

    def __init__(self, log_first: Callable[[Any], object], log_more: Callable[[int], object]) -> None:
        self._log_first = log_first
        self._log_more = log_more
        self._unlogged = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Any) -> None:
        """Count an event, and log it if none was logged within the last second."""
        if self._timer is not None:
            self._unlogged += 1
            return
        self._log_first(one)
        self._begin_interval()

    def close(self) -> None:
        """Log the events that were only counted so far. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._log_counted()

    def _begin_interval(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._end_interval)

    def _end_interval(self) -> None:
        """Log the number of events; if there were none, the next one is logged at once."""
        self._timer = None
        if self._log_counted():
            self._begin_interval()

    def _log_counted(self) -> bool:
        """Log the number of events since the last time; return whether there were any."""
        unlogged, self._unlogged = self._unlogged, 0
        if unlogged:
            self._log_more(unlogged)
        return bool(unlogged)
