"""Endpoints: texts that name an address to listen on or to connect to, and the parsed values.

This module accesses neither the network nor the file system, so a deployment file can be checked on any
machine.

======================================  =======================================================
text                                    address
======================================  =======================================================
``HOST:PORT``, ``tcp://HOST:PORT``      every address that HOST resolves to
``:PORT``                               every interface, IPv4 and IPv6
``[::1]:PORT``                          an IPv6 address, in brackets; ``[fe80::1%eth0]`` with its zone
``tls://HOST:PORT?cert=FILE``           TLS; see `TlsEndpoint` for its other settings
``unix:/run/x.sock?mode=660``           a unix socket; the mode is octal and may be left out
``unix:@name``                          a name in Linux's abstract namespace, which has no file
``fd://3``                              a socket inherited from the parent, by its descriptor
``systemd://NAME``                      sockets inherited from systemd, by their name
``systemd://``                          the same, when only one name was passed
======================================  =======================================================

``unix:///run/x.sock`` is the same as ``unix:/run/x.sock``. ``unix://run/x.sock`` is refused: in a URL it
would name a host, and the path is ambiguous. In paths, settings and systemd names ``%XX`` is a byte; write
``?``, ``&`` and ``%`` in that form if they are part of a name. Hosts are ASCII: write a name with other
letters in its ``xn--`` form.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, Never, Self

from tamed._os.text import noun
from tamed.errors import ConfigurationError, ServiceMisuse
from tamed.net._endpoint_text import (
    FORMS,
    authority,
    canonical_host,
    canonical_text,
    check_port,
    escape,
    host_and_port,
    nearest,
    octal,
    once,
    refuse_settings,
    settings,
    unescape,
)

__all__ = [
    "BadEndpoint",
    "Endpoint",
    "FdEndpoint",
    "KeyPair",
    "SystemdEndpoint",
    "TcpEndpoint",
    "TlsEndpoint",
    "UnixEndpoint",
    "address_text",
    "as_endpoint",
]

_DESCRIPTOR_LIMIT = 2**31


class BadEndpoint(ValueError):
    """A text is not an endpoint. ``text`` is the text and ``why`` states the expected form."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text, why)
        self.text = text
        self.why = why

    def __str__(self) -> str:
        return f"{self.text!r}: {self.why}"


class Endpoint(ABC):
    """An address to listen on or to connect to: immutable, hashable, equal by value.

    ``str()`` returns the canonical text, and ``Endpoint.parse(str(endpoint)) == endpoint``. The
    constructors of the subclasses raise ``ValueError`` for values that cannot be written as a text.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an endpoint of this class; ``Endpoint.parse`` accepts all kinds.

        Raises only ``BadEndpoint``, a ``ValueError`` with the expected form and the fault, for any text.
        """
        try:
            endpoint = _parse(text)
        except ValueError as error:
            raise BadEndpoint(text, str(error)) from None
        if not isinstance(endpoint, cls):
            raise BadEndpoint(text, f"expected a {cls.__name__}, got a {type(endpoint).__name__}")
        return endpoint

    def replace(self, **changes: Any) -> Self:
        """Return a copy of the endpoint with other values for some of its attributes."""
        return type(self)(**{name: getattr(self, name) for name in self.__match_args__} | changes)

    def relative_to(self, folder: Path) -> Self:
        """Return a copy of the endpoint with relative paths resolved from a folder."""
        return self

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"an endpoint is immutable, so is its {name}: use replace()")

    def __delattr__(self, name: str) -> Never:
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)

    def _set(self, **values: object) -> None:
        """Set attributes in the constructor; later they cannot be set."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


class TcpEndpoint(Endpoint):
    """A host and a port, of TCP; for a datagram server, of UDP.

    ``host`` is a name, an IPv4 or an IPv6 address (without brackets), or empty for every interface.
    ``port`` is 0 to 65535; a server on port 0 gets a free one.
    """

    __slots__ = ("host", "port")
    __match_args__ = ("host", "port")

    host: str
    port: int

    def __init__(self, host: str, port: int) -> None:
        self._set(host=canonical_host(host), port=check_port(port))

    def __str__(self) -> str:
        scheme = "tcp://" if self.host in _PARSERS else ""
        return f"{scheme}{authority(self.host, self.port)}"


class KeyPair(NamedTuple):
    """A PEM file with a certificate and its chain, and one with its private key (None: it is in the same)."""

    cert: Path
    key: Path | None = None


class TlsEndpoint(Endpoint):
    """A host and a port, with TLS.

    ``cert`` is a PEM file with the certificate and its chain, ``key`` one with the private key (None: it
    is in ``cert``). ``more`` are others: a client gets the one with the name that it requests
    (SNI, RFC 6066), or the first if none has it; with ``unknown_name`` ``refuse`` the handshake then fails.

    With ``client_ca``, clients must send a certificate signed by one in that file; with ``verify_client``
    ``optional`` they may also send none.
    """

    __slots__ = ("cert", "client_ca", "host", "key", "more", "port", "unknown_name", "verify_client")
    __match_args__ = ("host", "port", "cert", "key", "client_ca", "more", "verify_client", "unknown_name")

    host: str
    port: int
    cert: Path
    key: Path | None
    client_ca: Path | None
    more: tuple[KeyPair, ...]
    verify_client: Literal["required", "optional"]
    unknown_name: Literal["default", "refuse"]

    def __init__(  # noqa: PLR0917 - all of them have names
        self,
        host: str,
        port: int,
        cert: Path,
        key: Path | None = None,
        client_ca: Path | None = None,
        more: tuple[KeyPair, ...] = (),
        verify_client: str = "required",
        unknown_name: str = "default",
    ) -> None:
        self._set(host=canonical_host(host), port=check_port(port))
        self._set(cert=_file(cert, "cert"), key=key and _file(key, "key"))
        self._set(client_ca=client_ca and _file(client_ca, "client_ca"))
        self._set(more=tuple(KeyPair(_file(c, "cert"), k and _file(k, "key")) for c, k in more))
        given = {"verify_client": verify_client, "unknown_name": unknown_name}
        for name, value in given.items():
            if value not in _TLS_CHOICES[name]:
                raise ValueError(f"{name} is {' or '.join(_TLS_CHOICES[name])}, not {value!r}")
        if verify_client == "optional" and client_ca is None:
            raise ValueError("verify_client without client_ca: add client_ca=FILE")
        self._set(**given)

    @property
    def pairs(self) -> tuple[KeyPair, ...]:
        """All certificates with their keys; the first is the default."""
        return KeyPair(self.cert, self.key), *self.more

    def relative_to(self, folder: Path) -> Self:
        """Return a copy of the endpoint with the paths of its files resolved from a folder."""
        first, *more = (KeyPair(folder / cert, key and folder / key) for cert, key in self.pairs)
        client_ca = self.client_ca and folder / self.client_ca
        return self.replace(cert=first.cert, key=first.key, more=tuple(more), client_ca=client_ca)

    def __str__(self) -> str:
        files = [item for pair in self.pairs for item in pair._asdict().items()]
        query = [
            f"{name}={escape(str(file))}" for name, file in (*files, ("client_ca", self.client_ca)) if file
        ]
        for name, (default, _) in _TLS_CHOICES.items():
            if getattr(self, name) != default:
                query.append(f"{name}={getattr(self, name)}")
        return f"tls://{authority(self.host, self.port)}?{'&'.join(query)}"


class UnixEndpoint(Endpoint):
    """A unix socket.

    ``path`` is a file, or with a leading ``@`` a name in Linux's abstract namespace (write ``./@name`` for a
    file with such a name). ``mode`` is that of the file, 0 to 0o777; with None the umask decides. Users with
    write permission for the file can connect.
    """

    __slots__ = ("mode", "path")
    __match_args__ = ("path", "mode")

    path: str
    mode: int | None

    def __init__(self, path: str, mode: int | None = None) -> None:
        path = canonical_text(path, "the path")
        # POSIX allows a special meaning of two leading slashes; it is not used, and `unix://` is refused.
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if path in ("", "@"):
            raise ValueError("no path: expected unix:/run/NAME.sock")
        if mode is not None and not 0 <= mode <= 0o777:
            raise ValueError(f"mode {mode:o} is out of range: expected 0 to 777")
        self._set(path=path, mode=mode)
        if mode is not None and self.abstract:
            raise ValueError("an abstract socket has no file, so it has no mode")

    @property
    def abstract(self) -> bool:
        """Whether this is a name in Linux's abstract namespace rather than a file."""
        return self.path.startswith("@")

    def relative_to(self, folder: Path) -> Self:
        """Return a copy of the endpoint with its path resolved from a folder; unchanged if it is abstract."""
        return self if self.abstract else self.replace(path=str(folder / self.path))

    def __str__(self) -> str:
        mode = "" if self.mode is None else f"?mode={self.mode:03o}"
        return f"unix:{escape(self.path)}{mode}"


class FdEndpoint(Endpoint):
    """A socket that the parent process left open for this one, by its file descriptor."""

    __slots__ = ("fd",)
    __match_args__ = ("fd",)

    fd: int

    def __init__(self, fd: int) -> None:
        if not 0 <= fd < _DESCRIPTOR_LIMIT:
            raise ValueError(f"{fd} is not a file descriptor: expected fd://3")
        self._set(fd=fd)

    def __str__(self) -> str:
        return f"fd://{self.fd}"


class SystemdEndpoint(Endpoint):
    """Sockets that systemd passed (sd_listen_fds(3)), by their ``FileDescriptorName=``.

    An empty ``socket_name`` means the only name that was passed.
    """

    __slots__ = ("socket_name",)
    __match_args__ = ("socket_name",)

    socket_name: str

    def __init__(self, socket_name: str = "") -> None:
        if not all(" " <= letter <= "~" and letter != ":" for letter in socket_name):
            raise ValueError("a systemd socket name is printable ASCII without a colon")
        self._set(socket_name=socket_name)

    def __str__(self) -> str:
        return f"systemd://{escape(self.socket_name)}"


def as_endpoint(where: str | Endpoint) -> Endpoint:
    """Return an endpoint unchanged, and parse a text.

    Raises ``ConfigurationError`` for a text that is not an endpoint, and ``ServiceMisuse`` for anything else.
    Use it for parameters that may be both.
    """
    if isinstance(where, Endpoint):
        return where
    if not isinstance(where, str):  # for callers without a type checker
        what = f"endpoint {where!r}: it is {noun(type(where).__name__)}, not a text"
        raise ServiceMisuse(what, remedy="write 'HOST:PORT'")
    try:
        return Endpoint.parse(where)
    except BadEndpoint as error:
        raise ConfigurationError(f"endpoint {where!r}", error.why) from None


def address_text(address: object) -> str:
    """Return an address of ``getsockname`` or ``getpeername`` as on the command line.

    ``127.0.0.1:10000``, ``[::1]:10000``, ``unix:/run/x.sock``, ``unix:@name``; ``unix:`` alone for a socket
    without a name, such as that of a unix client.
    """
    match address:
        case (str(host), int(port), *_):
            return authority(host, port)
        case bytes(name):
            return f"unix:{escape(name.decode('utf-8', 'surrogateescape').replace(chr(0), '@', 1))}"
        case str(path):
            return f"unix:{escape(path)}"
        case _:
            return str(address)


def _file(path: Path, what: str) -> Path:
    return Path(canonical_text(str(path), what))


def _parse(text: str) -> Endpoint:
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _parse_bare(text)
    if scheme not in _PARSERS:
        raise ValueError(f"unknown scheme {scheme!r}{nearest(scheme, _PARSERS)}; expected {FORMS}")
    return _PARSERS[scheme](rest)


def _parse_bare(text: str) -> Endpoint:
    host, port = host_and_port(text)
    if host in _PARSERS:
        raise ValueError(f"expected {host}://; a host of that name is written tcp://{host}:{port}")
    return TcpEndpoint(host, port)


def _parse_tls(rest: str) -> Endpoint:
    authority, _, query = rest.partition("?")
    host, port = host_and_port(authority)
    pairs: list[dict[str, Path]] = [{}]
    others: list[tuple[str, str]] = []
    for name, value in settings(query, "tls://", _TLS_SETTINGS):
        if name not in KeyPair._fields:
            others.append((name, value))
            continue
        if name in pairs[-1]:
            if name == "key":
                raise ValueError("key is given twice for one certificate")
            pairs.append({})
        pairs[-1][name] = Path(value)
    if any("cert" not in pair for pair in pairs):
        raise ValueError("no certificate: expected tls://HOST:PORT?cert=FILE")
    found: dict[str, Any] = once(others)
    if "client_ca" in found:
        found["client_ca"] = Path(found["client_ca"])
    (first, *more) = (KeyPair(**pair) for pair in pairs)
    return TlsEndpoint(host, port, first.cert, first.key, more=tuple(more), **found)


def _parse_unix(rest: str) -> Endpoint:
    path, _, query = rest.partition("?")
    if path.startswith("//") and not path.startswith("///"):
        raise ValueError("expected unix:/PATH for an absolute path, or unix:PATH for a relative one")
    found = once(settings(query, "unix:", ("mode",)))
    return UnixEndpoint(unescape(path), octal(found["mode"]) if found else None)


def _parse_fd(rest: str) -> Endpoint:
    if not re.fullmatch(r"[0-9]{1,10}", rest):
        raise ValueError("expected the number of a descriptor, such as fd://3")
    return FdEndpoint(int(rest))


def _parse_systemd(rest: str) -> Endpoint:
    refuse_settings(rest)
    return SystemdEndpoint(unescape(rest))


_PARSERS: dict[str, Callable[[str], Endpoint]] = {
    "tcp": lambda rest: TcpEndpoint(*host_and_port(rest)),
    "tls": _parse_tls,
    "unix": _parse_unix,
    "fd": _parse_fd,
    "systemd": _parse_systemd,
}
_TLS_CHOICES: Final = {"verify_client": ("required", "optional"), "unknown_name": ("default", "refuse")}
"""The settings that are one of two words; the first is the default."""

_TLS_SETTINGS: Final = ("cert", "key", "client_ca", *_TLS_CHOICES)
