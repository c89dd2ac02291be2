"""Who may come near a prompt: endpoints that are local, and what telnet refuses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tamed.builtin._login import is_local
from tamed.builtin.telnet import Options
from tamed.net.endpoint import Endpoint, UnixEndpoint
from tamed.plugins.values import Size
from tests.patience import PATIENCE


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("tls://localhost:1?cert=x.pem", True),
        ("unix:/run/x.sock", True),
        ("unix:/run/x.sock?mode=660", True),
        ("unix:/run/x.sock?mode=666", False),
        ("unix:@x", False),
        (":1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
        ("example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("tls://:1?cert=x.pem", False),
        ("fd://3", False),
        ("systemd://x", False),
    ],
)
def test_local_endpoints(text: str, local: bool) -> None:
    """Local is what only users of this machine can reach; of a socket from elsewhere nothing is known."""
    assert is_local(Endpoint.parse(text)) is local


def test_one_endpoint_of_several() -> None:
    """One endpoint that can be reached from elsewhere is enough for a refusal, which names it."""
    several = [Endpoint.parse("localhost:1"), Endpoint.parse(":2")]
    with pytest.raises(ValueError, match=r"^:2 can be reached from elsewhere"):
        Options(listen=several)


def test_limits_that_let_nobody_in() -> None:
    """A limit of 0 is refused."""
    with pytest.raises(ValueError, match="max-sessions"):
        Options(max_sessions=0)
    with pytest.raises(ValueError, match="max-line"):
        Options(max_line=Size(0))


@pytest.mark.parametrize("settings", [{"port": 0}, {"iface": "127.0.0.1"}, {"listen": ["localhost:1"]}])
def test_tcp_needs_a_password_or_a_flag(settings: dict[str, Any]) -> None:
    """On TCP every local user could connect: that takes a password file, or an option that says so."""
    if "listen" in settings:
        settings = {"listen": [Endpoint.parse(text) for text in settings["listen"]]}
    with pytest.raises(ValueError, match=r"^every user of this machine can connect to .*--password-file"):
        Options(**settings)
    assert Options(**settings, password_file=Path("users")).public
    assert Options(**settings, let_every_local_user_in=True).public


def test_the_default_is_a_socket_of_ones_own() -> None:
    """Without an endpoint it is a unix socket to which only its owner can connect."""
    (endpoint,) = Options().endpoints
    assert isinstance(endpoint, UnixEndpoint)
    assert endpoint.mode == 0o600


def test_nobody_is_let_in_as_root_without_a_password() -> None:
    """The flag does not help a process started as root: one line has the reason and the remedy."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = subprocess.run(
        [sys.executable, "-m", "tamed", "run", "telnet", "--port", "0", "--let-every-local-user-in"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 78
    assert "this process is root, and they would be root, too; use --password-file" in done.stderr
    assert "Traceback" not in done.stderr
