"""A limit of how many connections one address may have open, and how what a flood causes is logged."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tamed.log.logger import own_logger
from tamed.net.accept import OnAccept

__all__ = ["AddressLimit", "LogLimiter", "client_network"]

log = own_logger("tamed.net")

_PREFIX: Final = 64
"""How many bits of an IPv6 address count: whoever has one address of such a network has all of them."""

_INTERVAL: Final = 1.0
"""Seconds for which more of the same is only counted after one was logged."""


class AddressLimit:
    """Counts the connections of each peer address, and refuses those beyond ``most``.

    IPv6 addresses count as one when they are of the same /64 network, IPv4-mapped ones as the IPv4 address. A
    connection that is refused is closed at once. ``refused`` is the number of these; the first is logged by
    ``name``, that of the server, with its address, and those that follow as a number, once a second.
    """

    def __init__(self, most: int) -> None:
        self.name = ""
        self.refused = 0
        self._most = most
        self._open: Counter[str] = Counter()
        self._log_limiter = LogLimiter(self._log_refused, self._log_more)

    def guard(self, on_accept: OnAccept) -> OnAccept:
        """Return a function that calls ``on_accept`` for connections whose address has not too many."""
        open_by_address, most = self._open, self._most

        def accept_or_refuse(fd: int, address: Any) -> None:
            if open_by_address[_counted(address)] < most:
                on_accept(fd, address)
            else:
                os.close(fd)
                self._refused(address)

        return accept_or_refuse

    def enter(self, address: Any) -> None:
        """Count a connection of an address."""
        self._open[_counted(address)] += 1

    def leave(self, address: Any) -> None:
        """Count one connection less."""
        counted = _counted(address)
        self._open[counted] -= 1
        if not self._open[counted]:
            del self._open[counted]

    def close(self) -> None:
        """Log what was only counted so far: nothing is refused any more."""
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
    """Return what a client's host counts as, where clients are limited: the network that one client may have.

    That is an IPv4 address itself (also in its IPv6-mapped form), and of an IPv6 address its /64 network,
    since whoever has one address of it has all. A text that is no IP address, as for a unix socket, counts
    as itself.
    """
    if ":" not in host:
        return host
    import ipaddress  # not above: few servers limit addresses

    try:
        parsed = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed.packed, _PREFIX), strict=False))


def _counted(address: Any) -> str:
    """Return what an address, as accept(2) gives it, is counted as."""
    return client_network(address[0])


class LogLimiter:
    """Has the first of many logged, and those that follow as a number, once a second.

    ``log_first`` is given what is counted, and ``log_more`` how many there were since the last time.
    """

    def __init__(self, log_first: Callable[[Any], object], log_more: Callable[[int], object]) -> None:
        self._log_first = log_first
        self._log_more = log_more
        self._unlogged = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Any) -> None:
        """Count one, and log it if none was logged within the last second."""
        if self._timer is not None:
            self._unlogged += 1
            return
        self._log_first(one)
        self._begin_interval()

    def close(self) -> None:
        """Log what was only counted so far: there will be no more. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._log_counted()

    def _begin_interval(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._end_interval)

    def _end_interval(self) -> None:
        """Log how many there were; if there were none, the next one is logged at once."""
        self._timer = None
        if self._log_counted():
            self._begin_interval()

    def _log_counted(self) -> bool:
        """Log how many there were since the last time; return whether there were any."""
        unlogged, self._unlogged = self._unlogged, 0
        if unlogged:
            self._log_more(unlogged)
        return bool(unlogged)
