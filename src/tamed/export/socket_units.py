"""Socket units of systemd: systemd listens, and passes the sockets by name to the services of a deployment.

A service refers to them as ``systemd://NAME``; the operator specifies the address here.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tamed.errors import ConfigurationError, UsageError
from tamed.export.facts import Facts
from tamed.export.files import MadeFile
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint, address_text

__all__ = ["check_sockets", "read_socket", "socket_units_of"]

_LOOPBACK: Final = ("127.0.0.1", "::1")
_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 - the operator has asked for it


def read_socket(text: str) -> tuple[str, Endpoint]:
    """Read ``NAME=ADDRESS``, with the address of an endpoint. Raises ValueError for anything else."""
    name, separator, address = text.partition("=")
    if not (name and separator):
        raise ValueError(f"expected NAME=ADDRESS, such as poems=:80, got {text!r}")
    endpoint = Endpoint.parse(address)
    if not isinstance(endpoint, TcpEndpoint | UnixEndpoint):
        raise ValueError(f"expected HOST:PORT or unix:PATH after {name}=, got {address!r}")  # noqa: TRY004 - of a text
    return name, endpoint


def check_sockets(facts: Facts, sockets: Mapping[str, Endpoint]) -> None:
    """Raise UsageError for a name that no service refers to."""
    if unknown := next((name for name in sockets if name not in facts.sockets_of_systemd), None):
        known = ", ".join(facts.sockets_of_systemd) or "none"
        raise UsageError(f"--socket {unknown}", f"no service listens on systemd://{unknown} (known: {known})")


def socket_units_of(facts: Facts, sockets: Mapping[str, Endpoint], made_by: str) -> list[MadeFile]:
    """Return a socket unit for each of these names.

    Raises ConfigurationError for an address that systemd cannot listen on.
    """
    return [_unit_of(facts, name, endpoint, made_by) for name, endpoint in sorted(sockets.items())]


def _unit_of(facts: Facts, name: str, endpoint: Endpoint, made_by: str) -> MadeFile:
    sections = (
        ("Unit", [f"Description=Sockets {name} of {facts.name}".replace("%", "%%")]),
        ("Socket", list(_socket(facts, name, endpoint))),
        ("Install", ["WantedBy=sockets.target"]),
    )
    content = "\n".join("\n".join([f"[{title}]", *lines, ""]) for title, lines in sections)
    return MadeFile(f"{name}.socket", content, made_by)


def _socket(facts: Facts, name: str, endpoint: Endpoint) -> Iterator[str]:
    kinds = {
        each.is_datagram for each in facts.listening if each.endpoint == Endpoint.parse(f"systemd://{name}")
    }
    for is_datagram in sorted(kinds):
        for address in _addresses(name, endpoint):
            yield f"{'ListenDatagram' if is_datagram else 'ListenStream'}={address}"
    if isinstance(endpoint, UnixEndpoint):
        if not endpoint.abstract:
            yield f"SocketMode={0o666 if endpoint.mode is None else endpoint.mode:04o}"
            yield "RemoveOnStop=yes"
    else:
        yield "# One socket for each family, so that IPv4 clients have IPv4 addresses."
        yield "BindIPv6Only=ipv6-only"
    yield f"FileDescriptorName={name}"
    yield f"Service={facts.name}.service"


def _addresses(name: str, endpoint: Endpoint) -> list[str]:
    if isinstance(endpoint, UnixEndpoint):
        if not endpoint.path.startswith(("/", "@")):
            raise ConfigurationError(f"--socket {name}", "the path is not absolute", "use an absolute path")
        return [endpoint.path.replace("%", "%%")]
    assert isinstance(endpoint, TcpEndpoint)
    hosts = {"": _ANY, "localhost": _LOOPBACK}.get(endpoint.host, (endpoint.host,))
    if not all(":" in host or host.replace(".", "").isdigit() for host in hosts):
        why = f"systemd does not resolve the host name {endpoint.host}"
        raise ConfigurationError(f"--socket {name}", why, "use a numeric address, or :PORT for all")
    return [address_text((host, endpoint.port)) for host in hosts]
