"""Who may come near a prompt: endpoints that are local, and how failures are slowed down."""

import pytest

from tamed.builtin._prompt import Slowdown, is_local
from tamed.builtin.telnet import Options
from tamed.net import Endpoint
from tamed.plugins import Size


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
    """A limit of nothing is a mistake."""
    with pytest.raises(ValueError, match="max-sessions"):
        Options(max_sessions=0)
    with pytest.raises(ValueError, match="max-line"):
        Options(max_line=Size(0))


def test_failures_double_the_delay() -> None:
    """Each failure of a host doubles its delay up to the longest; other hosts have their own."""
    slowdown = Slowdown(now=lambda: 0.0)
    assert [slowdown.failed("a") for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert slowdown.failed("b") == 0.5
    assert all(slowdown.failed("a") == 30 for _ in range(2000))


def test_failures_are_forgotten() -> None:
    """After a success, or a long while, a host begins anew."""
    time = 0.0
    slowdown = Slowdown(now=lambda: time)
    slowdown.failed("a")
    slowdown.succeeded("a")
    assert slowdown.failed("a") == 0.5
    time = 599.0
    assert slowdown.failed("a") == 1.0
    time = 1199.0
    assert slowdown.failed("a") == 0.5


def test_failures_take_no_more_memory_than_so() -> None:
    """Of many hosts the one that failed the longest time ago is forgotten."""
    slowdown = Slowdown(most=2, now=lambda: 0.0)
    for host in "abc":
        slowdown.failed(host)
    assert slowdown.failed("c") == 1.0
    assert slowdown.failed("a") == 0.5
