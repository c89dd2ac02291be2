"""Logins: rate limits for password guesses, limits for pending connections, and local endpoints.

All of Tamed's plugins that ask for a password (telnet, console, ftp, socks) use this. Failures are counted
by network and not by connection, so a client gains nothing by opening another connection, or many.
"""

import asyncio
import ipaddress
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from tamed.net.address_limit import client_network
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.passwords import PasswordFile

__all__ = ["LoginGate", "PendingLogins", "TooManyFailures", "is_local"]

_FIRST: Final = 0.5  # seconds for which the gate is closed after the first failure
_LONGEST: Final = 30.0
_MEMORY: Final = 600.0
_NETWORKS: Final = 1000
"""Networks whose failures are remembered; the one with the oldest guess is dropped."""

_OTHERS: Final = 0o007


class TooManyFailures(Exception):
    """A guess was not verified, because its network must wait for ``seconds`` more."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many failed logins from your network: try again in {seconds:.0f} s")
        self.seconds = seconds


class _Source:
    """The guesses of a network."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.failures = 0
        self.unverified = 0
        self.last = 0.0
        self.closed_until = 0.0


class LoginGate:
    """Verifies passwords, and makes guessing slow.

    Each failure from a network (an IPv4 address, or the /64 of an IPv6 one) closes the gate to it: for
    half a second, then for twice as long each time, up to half a minute. While it is closed, no guess from
    there is verified. The guesses of a network are verified one after another, and a guess counts as failed
    until it has succeeded, so neither hanging up nor many connections at once help. A success, or ten
    minutes without a failure, resets the network.

    The answer to a failure waits until the gate opens again, for ``hold`` seconds at most. Each failure is
    logged at WARNING, in the form of the fail2ban filter in docs/builtin/logins.md; each success at INFO.
    ``now`` is the clock.
    """

    def __init__(
        self,
        users: PasswordFile,
        log: logging.Logger,
        *,
        hold: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.users = users
        self._log = log
        self._hold = hold
        self._now = now
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    async def verify(self, user: str, password: str, host: str) -> bool:
        """Return whether a user has this password. ``host`` is the client's address, or ``unix``.

        Raises TooManyFailures if the guess was not verified.
        """
        network = client_network(host)
        source = self._source(network)
        async with source.turn:
            if (left := source.closed_until - self._now()) > 0:
                source.unverified += 1
                raise TooManyFailures(left)
            verified, wait = False, self._count_failure(network, source)
            try:
                verified = await self.users.verify(user, password)
            finally:  # even if the client disconnects in the meantime
                if verified:
                    self._sources.pop(network, None)
                    source.closed_until = 0.0  # for the queued guesses
                    self._log.info("logged in from %s as %r", host, user)
                else:
                    source.closed_until = self._now() + wait
                    self._log.warning("login failed from %s for %r%s", host, user, _counts(source))
                    source.unverified = 0
        if not verified:
            await asyncio.sleep(min(wait, self._hold))
        return verified

    def _source(self, network: str) -> _Source:
        source = self._sources.get(network)
        if source is None or (self._now() - source.last > _MEMORY and not source.turn.locked()):
            source = self._sources[network] = _Source()
            source.last = self._now()
        self._sources.move_to_end(network)
        if len(self._sources) > _NETWORKS:
            self._sources.popitem(last=False)
        return source

    def _count_failure(self, network: str, source: _Source) -> float:
        """Count a failure; return the seconds for which the gate is to be closed."""
        source.failures += 1
        source.last = self._now()
        wait = min(_FIRST * 2.0 ** min(source.failures - 1, 63), _LONGEST)
        source.closed_until = self._now() + wait
        return wait


class PendingLogins:
    """The connections without a login yet: ``most`` of all, ``per_network`` of one network.

    With one more, the oldest is dropped, so clients that only connect and wait do not keep users out.
    """

    def __init__(self, *, most: int = 40, per_network: int = 5) -> None:
        self.most = most
        self._per_network = per_network
        self._waiting: dict[object, tuple[str, Callable[[], object]]] = {}  # the oldest first
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, connection: object, host: str, drop: Callable[[], object]) -> None:
        """Add a new connection; ``drop`` is called to make room for a later one."""
        network = client_network(host)
        self._waiting[connection] = network, drop
        self._count[network] += 1
        if self._count[network] > self._per_network:
            self._drop_oldest(network)
        elif len(self._waiting) > self.most:
            self._drop_oldest(None)

    def leave(self, connection: object) -> None:
        """Remove a connection that has logged in or ended. Idempotent."""
        network, _ = self._waiting.pop(connection, ("", None))
        if network:
            self._count[network] -= 1
            if not self._count[network]:
                del self._count[network]

    def _drop_oldest(self, network: str | None) -> None:
        oldest = next(each for each, (its, _) in self._waiting.items() if network is None or its == network)
        _, drop = self._waiting[oldest]
        self.leave(oldest)
        drop()


def _counts(source: _Source) -> str:
    counts = [f"{source.failures} in a row"] if source.failures > 1 else []
    if source.unverified:
        counts.append(f"{source.unverified} not verified")
    return f" ({', '.join(counts)})" if counts else ""


def is_local(endpoint: Endpoint) -> bool:
    """Return whether only users of this machine can connect to an endpoint.

    TCP must be on the loopback interface. A unix socket must have a mode that keeps others out: one in the
    abstract namespace has no mode, and a socket that another process made may have any, so neither is local.
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
