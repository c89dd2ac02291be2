"""Endpoints: texts that say where to listen or connect, and the values that they stand for.

Nothing here touches the network or the file system, so a deployment file can be checked on any machine.

======================================  =======================================================
text                                    where
======================================  =======================================================
``HOST:PORT``, ``tcp://HOST:PORT``      every address that HOST resolves to
``:PORT``                               every interface, IPv4 and IPv6
``[::1]:PORT``                          an IPv6 address, in brackets; ``[fe80::1%eth0]`` with its zone
``tls://HOST:PORT?cert=FILE``           TLS; also ``key=FILE`` and ``client_ca=FILE``
``unix:/run/x.sock?mode=660``           a unix socket; the mode is octal and may be left out
``unix:@name``                          a name in Linux's abstract namespace, which has no file
``fd://3``                              a socket inherited from the parent, by its descriptor
``systemd://NAME``                      sockets inherited from systemd, by their name
``systemd://``                          the same, when only one name was passed
======================================  =======================================================

``unix:///run/x.sock`` is read as ``unix:/run/x.sock``. ``unix://run/x.sock`` is refused: it would name
a host in a URL and it is unclear which path is meant. In paths, settings and systemd names ``%XX`` is
a byte; a ``?``, a ``&`` and a ``%`` of their own are written that way. Hosts are ASCII: a name in
other letters is written in its ``xn--`` form.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Never, Self

from tamed.errors import ConfigurationError
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
    refuse_settings,
    settings,
    unescape,
)

__all__ = [
    "BadEndpoint",
    "Endpoint",
    "FdEndpoint",
    "SystemdEndpoint",
    "TcpEndpoint",
    "TlsEndpoint",
    "UnixEndpoint",
    "address_text",
    "as_endpoint",
]

_DESCRIPTOR_LIMIT = 2**31


class BadEndpoint(ValueError):
    """A text is no endpoint. ``text`` is what was given and ``why`` what was expected instead."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text, why)
        self.text = text
        self.why = why

    def __str__(self) -> str:
        return f"{self.text!r}: {self.why}"


class Endpoint(ABC):
    """Where to listen or connect: immutable, hashable, equal by value.

    ``str()`` gives the canonical text, and ``Endpoint.parse(str(endpoint)) == endpoint``. The
    constructors of the kinds raise ``ValueError`` for values that no text could stand for.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an endpoint of this kind; ``Endpoint.parse`` reads every kind.

        Raises ``BadEndpoint``, a ``ValueError`` that says what was expected and what was wrong, and
        nothing else, whatever the text.
        """
        try:
            endpoint = _parse(text)
        except ValueError as error:
            raise BadEndpoint(text, str(error)) from None
        if not isinstance(endpoint, cls):
            raise BadEndpoint(text, f"expected a {cls.__name__}, and this is a {type(endpoint).__name__}")
        return endpoint

    def replace(self, **changes: Any) -> Self:
        """Return the same endpoint with other values for some of its attributes."""
        return type(self)(**{name: getattr(self, name) for name in self.__match_args__} | changes)

    def relative_to(self, folder: Path) -> Self:
        """Return the same endpoint with its relative paths starting at a folder."""
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
        raise AttributeError(f"an endpoint cannot be changed, nor its {name}: make another one")

    def __delattr__(self, name: str) -> Never:
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)

    def _set(self, **values: object) -> None:
        """Set what the constructor was given: the one time that anything is."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


class TcpEndpoint(Endpoint):
    """A host and a port; UDP's when a datagram server is given it.

    ``host`` is a name, an IPv4 or an IPv6 address (without brackets), or empty for every interface.
    ``port`` is 0 to 65535; listening on 0 takes a free one.
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


class TlsEndpoint(Endpoint):
    """A host and a port, spoken to in TLS.

    ``cert`` is a PEM file with the certificate and its chain, ``key`` one with the private key (None: it
    is in ``cert``). With ``client_ca``, clients must show a certificate signed by one in that file.
    """

    __slots__ = ("cert", "client_ca", "host", "key", "port")
    __match_args__ = ("host", "port", "cert", "key", "client_ca")

    host: str
    port: int
    cert: Path
    key: Path | None
    client_ca: Path | None

    def __init__(
        self, host: str, port: int, cert: Path, key: Path | None = None, client_ca: Path | None = None
    ) -> None:
        self._set(host=canonical_host(host), port=check_port(port), key=None, client_ca=None)
        files = {"cert": cert, "key": key, "client_ca": client_ca}
        for name, file in files.items():
            if file is not None:
                self._set(**{name: Path(canonical_text(str(file), name))})

    @property
    def _files(self) -> dict[str, Path]:
        files = {name: getattr(self, name) for name in _TLS_SETTINGS}
        return {name: file for name, file in files.items() if file is not None}

    def relative_to(self, folder: Path) -> Self:
        """Return the endpoint with the paths of its files starting at a folder."""
        return self.replace(**{name: folder / file for name, file in self._files.items()})

    def __str__(self) -> str:
        query = "&".join(f"{name}={escape(str(file))}" for name, file in self._files.items())
        return f"tls://{authority(self.host, self.port)}?{query}"


class UnixEndpoint(Endpoint):
    """A unix socket.

    ``path`` is a file, or with a leading ``@`` a name in Linux's abstract namespace (a file whose name
    begins so is ``./@name``). ``mode`` is the file's, 0 to 0o777; None leaves it to the umask. Whoever may
    write to the file may connect.
    """

    __slots__ = ("mode", "path")
    __match_args__ = ("path", "mode")

    path: str
    mode: int | None

    def __init__(self, path: str, mode: int | None = None) -> None:
        path = canonical_text(path, "the path")
        # POSIX lets two leading slashes mean something else; nobody means it, and `unix://` is refused.
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if path in ("", "@"):
            raise ValueError("no path: expected unix:/run/NAME.sock")
        if mode is not None and not 0 <= mode <= 0o777:
            raise ValueError(f"mode {mode:o} is out of range: expected 0 to 777")
        self._set(path=path, mode=mode)
        if mode is not None and self.abstract:
            raise ValueError("an abstract socket has no file, so it takes no mode")

    @property
    def abstract(self) -> bool:
        """Whether this is a name in Linux's abstract namespace rather than a file."""
        return self.path.startswith("@")

    def relative_to(self, folder: Path) -> Self:
        """Return the endpoint with its path starting at a folder; an abstract name stays what it is."""
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
            raise ValueError(f"{fd} is no file descriptor: expected fd://3")
        self._set(fd=fd)

    def __str__(self) -> str:
        return f"fd://{self.fd}"


class SystemdEndpoint(Endpoint):
    """Sockets that systemd passed (sd_listen_fds(3)), by their ``FileDescriptorName=``.

    An empty ``socket_name`` stands for the only name that was passed.
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
    """Return an endpoint as it is and a text parsed.

    Raises ``ConfigurationError`` for a text that is none; use it wherever a program may give either.
    """
    if isinstance(where, Endpoint):
        return where
    try:
        return Endpoint.parse(where)
    except BadEndpoint as error:
        raise ConfigurationError(f"endpoint {where!r}", error.why) from None


def address_text(address: object) -> str:
    """Write down what ``getsockname`` and ``getpeername`` return, as one would type it.

    ``127.0.0.1:10000``, ``[::1]:10000``, ``unix:/run/x.sock``, ``unix:@name``; ``unix:`` alone for a socket
    without a name, as those of unix clients are.
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


def _parse_tcp(rest: str) -> Endpoint:
    return TcpEndpoint(*host_and_port(rest))


def _parse_tls(rest: str) -> Endpoint:
    authority, _, query = rest.partition("?")
    host, port = host_and_port(authority)
    found = settings(query, "tls://", _TLS_SETTINGS)
    if "cert" not in found:
        raise ValueError("no certificate: expected tls://HOST:PORT?cert=FILE")
    return TlsEndpoint(host, port, **{name: Path(file) for name, file in found.items()})


def _parse_unix(rest: str) -> Endpoint:
    path, _, query = rest.partition("?")
    if path.startswith("//") and not path.startswith("///"):
        raise ValueError("expected unix:/PATH for an absolute path, or unix:PATH for a relative one")
    found = settings(query, "unix:", ("mode",))
    return UnixEndpoint(unescape(path), octal(found["mode"]) if found else None)


def _parse_fd(rest: str) -> Endpoint:
    if not re.fullmatch(r"[0-9]{1,10}", rest):
        raise ValueError("expected the number of a descriptor, such as fd://3")
    return FdEndpoint(int(rest))


def _parse_systemd(rest: str) -> Endpoint:
    refuse_settings(rest)
    return SystemdEndpoint(unescape(rest))


_PARSERS: dict[str, Callable[[str], Endpoint]] = {
    "tcp": _parse_tcp,
    "tls": _parse_tls,
    "unix": _parse_unix,
    "fd": _parse_fd,
    "systemd": _parse_systemd,
}
_TLS_SETTINGS = ("cert", "key", "client_ca")
