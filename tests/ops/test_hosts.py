"""Which names a client may address the operations endpoint by."""

import socket

import pytest

from tamed.ops.application import HostCheck

CHECK = HostCheck(["ops.example"])


@pytest.mark.parametrize(
    "host",
    [
        None,
        "localhost",
        "LOCALHOST:9321",
        "127.0.0.1:9321",
        "10.1.2.3",
        "[::1]:9321",
        "::1",
        "ops.example",
        "ops.example.:80",
        socket.gethostname(),
    ],
)
def test_names_of_this_machine_and_addresses_are_allowed(host: str | None) -> None:
    """An address, localhost, the machine's name, a name of the option, and no name at all."""
    assert CHECK.refusal(host, None) == ""


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9321", "localhost.evil.example", ""])
def test_other_names_are_refused(host: str) -> None:
    """A site that gives its own name the address of this endpoint is refused."""
    assert "--ops-host" in CHECK.refusal(host, None)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://127.0.0.1:9321", True),
        ("https://ops.example", True),
        ("https://evil.example", False),
        ("null", False),
    ],
)
def test_pages_of_other_sites_are_refused(origin: str, is_allowed: bool) -> None:
    """A page that a browser has from elsewhere is refused, whatever host it addresses."""
    assert (CHECK.refusal("127.0.0.1", origin) == "") is is_allowed


def test_unix_sockets_have_any_name() -> None:
    """No browser can connect to a unix socket, so its clients may say any name."""
    assert HostCheck(checks=False).refusal("evil.example", "https://evil.example") == ""
