"""Engines: services that grant a role to one of several machines, for a time, with an increasing number.

An engine is named by a URL, whose scheme chooses its class. Other distributions add a scheme with an entry
point of the group ``tamed.engines``: its name is the scheme, and its value a callable that takes an
`EngineUrl` and returns an `Engine`.

An engine only stores the holder of a role. The campaign decides when to ask, and when a holder must stop.
"""

import asyncio
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote

from tamed._os.secrets import SECRETS
from tamed._os.syscalls import boot_time
from tamed._os.text import did_you_mean, listed
from tamed._os.variables import import_variable
from tamed.errors import ConfigurationError, TamedError, Unavailable, reason

__all__ = ["Attempt", "Engine", "EngineError", "EngineUrl", "Sightings", "open_engine"]

_GROUP: Final = "tamed.engines"
_OWN: Final[Mapping[str, str]] = {
    "etcd": "tamed.cluster.etcd:EtcdEngine",
    "kubernetes": "tamed.cluster.kubernetes:KubernetesEngine",
    "nats": "tamed.cluster.nats:NatsEngine",
    "postgres": "tamed.cluster.postgres:PostgresEngine",
    "postgresql": "tamed.cluster.postgres:PostgresEngine",
}
"""The engines that come with Tamed, by scheme. Each has an extra of its name, if it needs a library."""


class EngineError(Unavailable):
    """An engine does not answer, or refuses: the holder of the role is unknown."""


class Attempt(NamedTuple):
    """The answer to an attempt to acquire a role.

    ``token`` is the fencing token of the new holder, None if another process holds the role. It is larger
    than every earlier token of that role, and fits into 63 bits. ``holder`` is the claim of the current
    holder, empty if the engine does not know it.
    """

    token: int | None
    holder: str


class Engine(ABC):
    """Grants roles to processes of several machines. Each process has its own engine object.

    The methods run in the event loop, and must not block it. Each may be cancelled at any moment; its effect
    is then unknown. Each raises EngineError, with the reason on one line, if the engine does not answer or
    refuses. The constructor connects to nothing.
    """

    @abstractmethod
    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        """Try to acquire a role for ``ttl`` seconds; return at once, even if another process holds it.

        The engine must not grant the role to another process within ``ttl`` seconds of this call. ``holder``
        is a short text for the others, unique to this campaign. If an earlier attempt of this object acquired
        the role without its caller knowing, this one may acquire it again, for the full ``ttl``.
        """

    @abstractmethod
    async def renew(self, role: str) -> bool:
        """Hold a role for another ``ttl`` seconds from this call; False if it is lost for good."""

    @abstractmethod
    async def release(self, role: str) -> None:
        """Release a role, so that another process gets it at once. Must be safe if it is not held."""

    async def release_ended(self, role: str, holder: str) -> None:  # noqa: B027 - as a default
        """Release the role of another holder, whose process has certainly ended.

        Must do nothing if another process holds it now. This is an optimisation: by default nothing is done,
        and the lease expires.
        """

    async def wait(self, role: str, seconds: float) -> None:
        """Return when a role may have become vacant, or after ``seconds``.

        This is an optimisation: by default it waits for ``seconds``. Raises EngineError, as all methods do.
        """
        await asyncio.sleep(seconds)

    @abstractmethod
    async def close(self) -> None:
        """Close the connections. Held roles are not released."""


class EngineUrl(NamedTuple):
    """``SCHEME://[USER@]HOST[:PORT],…/PATH?OPTION=VALUE``, or ``SCHEME:PATH`` without hosts.

    ``hosts`` are hosts with a port, None if the URL has none. ``path`` has no slash at its ends.
    """

    text: str
    scheme: str
    user: str = ""
    hosts: tuple[tuple[str, int | None], ...] = ()
    path: str = ""
    options: Mapping[str, str] = {}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL. Raises ValueError, with the expected form; a password is refused."""
        scheme, colon, rest = text.partition(":")
        if not colon or not re.fullmatch("[a-z][a-z0-9+.-]*", scheme):
            raise ValueError("expected SCHEME://HOST[:PORT],…")
        rest, _, query = rest.partition("?")
        user = place = ""
        if rest.startswith("//"):
            place, _, rest = rest[2:].partition("/")
            user, _, place = place.rpartition("@")
        if ":" in user:
            raise ValueError("others can read a password in a URL; use ?password-file=FILE")
        hosts = tuple(_host(each) for each in place.split(",")) if place else ()
        return cls(text, scheme, unquote(user), hosts, unquote(rest.strip("/")), _options(query))

    def hosts_at(self, port: int) -> list[tuple[str, int]]:
        """Return the hosts, with this port for those that have none."""
        return [(name, given or port) for name, given in self.hosts]

    def places(self, port: int) -> list[str]:
        """Return the same as texts."""
        return [f"[{name}]:{at}" if ":" in name else f"{name}:{at}" for name, at in self.hosts_at(port)]

    @property
    def what(self) -> str:
        """The subject of a message about this URL."""
        return f"--cluster {self.text}"

    def check(self, *options: str, hosts: bool = True) -> None:
        """Raise ConfigurationError for an option that is not among these, or if hosts are missing."""
        if hosts != bool(self.hosts):
            expected = f"{self.scheme}://HOST[:PORT],…" if hosts else f"{self.scheme}:PATH"
            raise ConfigurationError(self.what, f"expected {expected}")
        for name in self.options:
            if name not in options:
                known = f"known: {', '.join(options)}" if options else "it has none"
                raise ConfigurationError(
                    self.what, f"unknown option {name!r}", did_you_mean(name, options, known)
                )

    def tls(self) -> ssl.SSLContext | None:
        """Return the context of the options ``ca``, ``cert`` and ``key``; None without ``ca``: no TLS.

        ``ca`` is the file of trusted certificates, or ``system`` for those of the system; ``cert`` and
        ``key`` are the client's certificate and its key. The files are read at each call. Raises
        ConfigurationError.
        """
        ca, cert, key = (self.options.get(name, "") for name in ("ca", "cert", "key"))
        if not ca:
            if cert or key:
                raise ConfigurationError(self.what, "cert and key need ca", "add ca=FILE or ca=system")
            return None
        try:
            context = ssl.create_default_context(cafile=None if ca == "system" else ca)
            if cert:
                context.load_cert_chain(cert, key or None)
        except (OSError, ValueError) as error:
            raise ConfigurationError(self.what, f"its certificates: {reason(error)}") from error
        return context

    def password(self) -> str:
        """Read the file of the option ``password-file``; empty without one. Raises EngineError.

        The file is read at each call, so that it can be changed. The password is hidden in the log.
        """
        if not (name := self.options.get("password-file", "")):
            return ""
        try:
            password = Path(name).read_text("utf-8").rstrip("\n")
        except (OSError, ValueError) as error:
            raise EngineError(f"password file {name}", reason(error)) from error
        SECRETS.remember(password)
        return password


def open_engine(text: str) -> Engine:
    """Return the engine of a URL. Nothing is connected yet.

    Raises ConfigurationError for an invalid URL, an unknown scheme, and a missing library.
    """
    try:
        url = EngineUrl.parse(text)
    except ValueError as error:
        shown = re.sub("//[^/@]*@", "//***@", text)  # it may contain a password
        raise ConfigurationError(f"--cluster {shown}", str(error)) from error
    make = _engine_class(url)
    try:
        engine = make(url)
    except TamedError:
        raise
    except Exception as error:
        raise ConfigurationError(url.what, reason(error)) from error
    if not isinstance(engine, Engine):
        raise ConfigurationError(url.what, f"its engine is no Engine but {type(engine).__name__}")
    return engine


def _engine_class(url: EngineUrl) -> Callable[[EngineUrl], Any]:
    target = _OWN.get(url.scheme) or _installed().get(url.scheme)
    if target is None:
        known = sorted({*_OWN, *_installed()})
        remedy = did_you_mean(url.scheme, known, f"known: {listed(known)}" if known else "none is installed")
        raise ConfigurationError(url.what, f"there is no engine {url.scheme!r}", remedy)
    try:
        found: Callable[[EngineUrl], Any] = import_variable(target)
    except ModuleNotFoundError as error:
        is_own = url.scheme in _OWN
        remedy = f"pip install 'tamed[cluster-{target.rpartition('.')[2].partition(':')[0]}]'"
        why = f"there is no module {error.name!r}"
        raise ConfigurationError(url.what, why, remedy if is_own else "") from error
    except Exception as error:
        raise ConfigurationError(url.what, reason(error)) from error
    return found


def _installed() -> dict[str, str]:
    from importlib.metadata import entry_points  # slow, so the last resort

    return {each.name: each.value for each in entry_points(group=_GROUP)}


def _host(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?", text)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise ValueError(f"expected HOST or HOST:PORT, got {text!r}")
    return match["v6"] or match["name"], int(match["port"]) if match["port"] else None


def _options(query: str) -> Mapping[str, str]:
    if not query:
        return {}
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("an option is set twice")
    return options


class _Sighting(NamedTuple):
    version: Hashable
    since: float


class Sightings:
    """The expiry of leases in a store without expiry, by the clock of the waiting process, in seconds.

    A record in such a store contains the time that its holder may be silent. Each renewal changes the version
    of the record. A process that has seen the same version for this time knows that it was not renewed,
    because it began to wait after the record was written. So clocks are not compared: they only have to run
    at about the same rate. The price is that a new process waits for the full time, even after a holder that
    died long ago. The record is then replaced on condition of the seen version, which fails if the holder has
    renewed.
    """

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._seen: dict[str, _Sighting] = {}

    def has_run_out(self, record: str, version: Hashable, seconds: float) -> bool:
        """Record a version that was just read; return whether it has been the same for ``seconds``."""
        now = self._clock()
        seen = self._seen.get(record)
        if seen is None or seen.version != version:
            seen = self._seen[record] = _Sighting(version, now)
        return now - seen.since >= seconds
