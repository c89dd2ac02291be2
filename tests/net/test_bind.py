import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tamed._os.limits import sysctl
from tamed.errors import ConfigurationError, PermissionRefused, SystemRefused, TamedError, Unavailable
from tamed.net.bind import Address, Bound, bind, needs_lookup, resolve
from tamed.net.endpoint import Endpoint, FdEndpoint, TcpEndpoint, TlsEndpoint
from tests.net.unprivileged import run_unprivileged

LOOPBACK = Address(socket.AF_INET, ("127.0.0.1", 0))
LOOPBACK6 = Address(socket.AF_INET6, ("::1", 0, 0, 0))
NOT_OURS = Address(socket.AF_INET, ("192.0.2.1", 0))  # TEST-NET-1 of RFC 5737: nobody's
EITHER_KIND = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])


def has_ipv6() -> bool:
    """Tell whether ``[::1]`` can be bound here."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


NEEDS_IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")


@contextmanager
def another_process_with(sock: socket.socket) -> Iterator[int]:
    """Give the port of a socket, which only another process has inside the ``with``."""
    with sock, subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]):
        port = sock.getsockname()[1]
        sock.close()
        yield port


def ports(bound: Bound) -> list[int]:
    """Return the port of each socket."""
    return [sock.getsockname()[1] for sock in bound.sockets]


@EITHER_KIND
def test_a_numeric_address_is_bound(kind: socket.SocketKind) -> None:
    """One numeric address gives one socket, of the kind asked for, non-blocking and not inheritable."""
    with closing(bind(TcpEndpoint("127.0.0.1", 0), kind)) as bound:
        (sock,) = bound.sockets
        assert sock.getsockname()[0] == "127.0.0.1"
        assert sock.getsockname()[1] > 0
        assert sock.type == kind
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_binding_does_not_listen() -> None:
    """A bound socket takes no connection before its server starts."""
    with closing(bind(TcpEndpoint("127.0.0.1", 0))) as bound, socket.socket() as client:
        assert client.connect_ex(bound.sockets[0].getsockname()) == errno.ECONNREFUSED


@NEEDS_IPV6
@EITHER_KIND
def test_several_addresses_have_one_port(kind: socket.SocketKind) -> None:
    """A host of several addresses is bound on all of them, also on a port that the kernel chose."""
    with closing(bind(TcpEndpoint("localhost", 0), kind, [LOOPBACK, LOOPBACK6])) as bound:
        assert [sock.family for sock in bound.sockets] == [socket.AF_INET, socket.AF_INET6]
        assert len(set(ports(bound))) == 1


@NEEDS_IPV6
@EITHER_KIND
def test_no_host_is_every_interface(kind: socket.SocketKind) -> None:
    """``:PORT`` is a socket for IPv4 and one for IPv6 only."""
    with closing(bind(TcpEndpoint("", 0), kind)) as bound:
        assert [sock.getsockname()[0] for sock in bound.sockets] == ["0.0.0.0", "::"]
        assert bound.sockets[1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert len(set(ports(bound))) == 1


class UnluckySocket(socket.socket):
    """A socket whose IPv6 ports are taken, as often as ``failures`` says."""

    failures = 0

    def bind(self, address: object) -> None:
        if self.family == socket.AF_INET6 and type(self).failures > 0:
            type(self).failures -= 1
            raise OSError(errno.EADDRINUSE, "Address already in use")
        super().bind(address)  # type: ignore[arg-type]


@NEEDS_IPV6
def test_a_chosen_port_that_is_taken_on_the_second_address_is_changed() -> None:
    """With port 0, another port is tried when the first one is taken on the second address."""

    class TwiceUnlucky(UnluckySocket):
        failures = 2

    endpoint = TcpEndpoint("localhost", 0)
    with closing(bind(endpoint, addresses=[LOOPBACK, LOOPBACK6], make_socket=TwiceUnlucky)) as bound:
        assert len(set(ports(bound))) == 1
    assert TwiceUnlucky.failures == 0


@NEEDS_IPV6
def test_trying_other_ports_ends() -> None:
    """When no port will do on all addresses, that is the error, and nothing stays bound."""
    made: list[socket.socket] = []

    class NeverLucky(UnluckySocket):
        failures = 1000

        def __init__(self, family: int, kind: int) -> None:
            super().__init__(family, kind)
            made.append(self)

    with pytest.raises(Unavailable, match="in use"):
        bind(TcpEndpoint("localhost", 0), addresses=[LOOPBACK, LOOPBACK6], make_socket=NeverLucky)
    assert len(made) == 20
    assert {sock.fileno() for sock in made} == {-1}


@pytest.mark.parametrize("order", [1, -1])
def test_an_address_of_another_machine_is_left_out(order: int) -> None:
    """An address that this machine does not have is passed over if there is another one."""
    with closing(bind(TcpEndpoint("both", 0), addresses=[NOT_OURS, LOOPBACK][::order])) as bound:
        assert [sock.getsockname()[0] for sock in bound.sockets] == ["127.0.0.1"]


def test_no_address_of_this_machine_is_an_error() -> None:
    """An address that this machine does not have is unavailable when it is the only one."""
    with pytest.raises(Unavailable) as caught:
        bind(TcpEndpoint("192.0.2.1", 10000))
    assert str(caught.value) == (
        "cannot listen on 192.0.2.1:10000: this machine has no address 192.0.2.1; "
        "give one that `ip address` shows, or :PORT for every interface"
    )


def refusing(number: int) -> type[socket.socket]:
    """Return a class of sockets that the system does not let be bound, for this reason."""

    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, os.strerror(number))

    return Refusing


def test_a_missing_family_is_an_error_when_it_is_the_only_one() -> None:
    """A machine without IPv6 says so for an IPv6 address."""

    def without_ipv6(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    with pytest.raises(Unavailable, match="this machine has no IPv6"):
        bind(TcpEndpoint("::1", 0), make_socket=without_ipv6)


def test_a_port_in_use() -> None:
    """The error names the port that another process listens on, and the command that finds the process."""
    with another_process_with(socket.create_server(("127.0.0.1", 0))) as taken:
        with pytest.raises(Unavailable) as caught:
            bind(TcpEndpoint("127.0.0.1", taken))
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{taken}: 127.0.0.1:{taken} is in use; "
            f"stop the process that listens there (ss -ltnp 'sport = :{taken}') or choose another port"
        )


def test_a_datagram_port_in_use() -> None:
    """A datagram port that another socket has is refused, and the remedy asks for UDP sockets."""
    (other,) = bind(TcpEndpoint("127.0.0.1", 0), socket.SOCK_DGRAM).sockets
    with another_process_with(other) as taken, pytest.raises(Unavailable, match="ss -lunp"):
        bind(TcpEndpoint("127.0.0.1", taken), socket.SOCK_DGRAM)


@pytest.mark.parametrize(("first", "second"), [("127.0.0.1", ""), ("0.0.0.0", "127.0.0.1"), ("", "0.0.0.0")])
@EITHER_KIND
def test_a_port_of_this_process(kind: socket.SocketKind, first: str, second: str) -> None:
    """The error names the address of the own server, and no process to stop."""
    with closing(bind(TcpEndpoint(first, 0), kind)) as own:
        port = ports(own)[0]
        if kind == socket.SOCK_STREAM:
            own.sockets[0].listen()
        with pytest.raises(Unavailable) as caught:
            bind(TcpEndpoint(second, port), kind)
    addresses = f"{second or '0.0.0.0'}:{port} is in use by this daemon, on {first or '0.0.0.0'}:{port}"
    remedy = "give each server its own port; a changed address of one server needs a restart"
    assert (caught.value.why, caught.value.remedy) == (addresses, remedy)


@NEEDS_IPV6
def test_nothing_is_left_bound_when_one_address_fails() -> None:
    """If one address of several cannot be bound, the sockets of those bound before are closed."""
    made: list[socket.socket] = []

    def make_socket(family: int, kind: int) -> socket.socket:
        made.append(socket.socket(family, kind))
        return made[-1]

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        addresses = [LOOPBACK.with_port(port), LOOPBACK6.with_port(port)]
        with pytest.raises(Unavailable, match="in use"):
            bind(TcpEndpoint("localhost", port), addresses=addresses, make_socket=make_socket)
    assert [sock.fileno() for sock in made] in ([-1], [-1, -1])


def test_a_port_can_be_bound_again_at_once() -> None:
    """Connections of the last run in TIME_WAIT do not keep a port from being bound."""
    with closing(bind(TcpEndpoint("127.0.0.1", 0))) as bound:
        (port,) = ports(bound)
        bound.sockets[0].listen()
        bound.sockets[0].setblocking(True)
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = bound.sockets[0].accept()
            connection.close()  # this end closes first, so it is the one that waits
            assert client.recv(1) == b""
    with closing(bind(TcpEndpoint("127.0.0.1", port))) as again:
        assert ports(again) == [port]


def privileged_port() -> int:
    """Return the highest port that only the privileged may bind."""
    lowest = sysctl("net.ipv4.ip_unprivileged_port_start")
    if not lowest or lowest < 2:
        pytest.skip("this system lets everybody bind every port")
    return lowest - 1


def test_a_port_that_needs_privilege() -> None:
    """A low port is refused to an unprivileged user, with the possible remedies."""
    port = privileged_port()
    said = run_unprivileged(
        "from tamed.net.bind import bind; from tamed.net.endpoint import Endpoint",
        f"bind(Endpoint.parse('127.0.0.1:{port}'))",
    )
    assert said == (
        f"PermissionRefused: cannot listen on 127.0.0.1:{port}: ports below {port + 1} need privileges; "
        "run as root with --user, or with CAP_NET_BIND_SERVICE, or from a systemd socket, "
        f"or choose a port from {port + 1} up"
    )


def test_a_refusal_of_a_high_port_is_not_blamed_on_its_number() -> None:
    """Another reason for a refusal, as SELinux has, is told as the system gives it."""
    with pytest.raises(PermissionRefused) as caught:
        bind(TcpEndpoint("127.0.0.1", 60000), make_socket=refusing(errno.EACCES))
    assert str(caught.value) == "cannot listen on 127.0.0.1:60000: Permission denied"


def test_other_refusals_are_the_system_s() -> None:
    """Other errors of ``bind`` have the operating system's text."""
    with pytest.raises(SystemRefused, match="Too many open files"):
        bind(TcpEndpoint("127.0.0.1", 0), make_socket=refusing(errno.EMFILE))


@pytest.mark.parametrize(
    ("endpoint", "kind", "said"),
    [
        (TlsEndpoint("127.0.0.1", 0, Path("c")), socket.SOCK_DGRAM, "datagrams have no TLS"),
        (FdEndpoint(3), socket.SOCK_STREAM, "its sockets are inherited"),
    ],
)
def test_endpoints_that_are_not_bound(endpoint: Endpoint, kind: socket.SocketKind, said: str) -> None:
    """TLS over datagrams, and sockets that are inherited, are refused."""
    with pytest.raises(ConfigurationError, match=said):
        bind(endpoint, kind)


def test_a_tls_endpoint_is_bound_like_tcp() -> None:
    """Binding a TLS endpoint needs no certificate: that is for whoever accepts."""
    with closing(bind(TlsEndpoint("127.0.0.1", 0, Path("missing")))) as bound:
        assert ports(bound)[0] > 0


def test_resolving_gives_each_address_once() -> None:
    """The addresses come in the resolver's order, with the port, and none twice."""
    asked: list[object] = []

    def getaddrinfo(host: str, port: int, *, type: int, flags: int) -> list[tuple[object, ...]]:  # noqa: A002
        asked.extend([host, port, type, flags])
        first = (socket.AF_INET, type, 6, "", ("127.0.0.1", port))
        return [first, (socket.AF_INET6, type, 6, "", ("::1", port, 0, 0)), first]

    found = resolve(TcpEndpoint("localhost", 80), getaddrinfo=getaddrinfo)
    assert [str(address) for address in found] == ["127.0.0.1:80", "[::1]:80"]
    assert asked == [b"localhost", 80, socket.SOCK_STREAM, socket.AI_PASSIVE]


def test_a_host_that_does_not_resolve() -> None:
    """The error names the host that does not resolve, with the resolver's reason."""

    def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Unavailable) as caught:
        resolve(TcpEndpoint("nosuch.invalid", 80), getaddrinfo=getaddrinfo)
    assert str(caught.value) == (
        "cannot listen on nosuch.invalid:80: the host name does not resolve (Name or service not known); "
        "check the name, or give an address of this machine"
    )


def test_the_system_s_resolver_refuses_an_invalid_name() -> None:
    """A name below ``.invalid`` (RFC 6761) does not resolve, whatever the resolver says about it."""
    with pytest.raises(
        Unavailable, match=r"cannot listen on nosuch\.invalid:80: the host name does not resolve"
    ):
        bind(TcpEndpoint("nosuch.invalid", 80))


def test_localhost_resolves_and_is_bound() -> None:
    """``localhost`` is bound on a loopback address at least."""
    with closing(bind(TcpEndpoint("localhost", 0))) as bound:
        assert {sock.getsockname()[0] for sock in bound.sockets} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:80", True),
        ("tls://example.org:80?cert=x", True),
        ("127.0.0.1:80", False),
        ("[::1]:80", False),
        (":80", False),
        ("unix:/x", False),
    ],
)
def test_only_names_need_a_lookup(text: str, expected: bool) -> None:
    """Numeric hosts, every interface and unix sockets need no name service."""
    assert needs_lookup(Endpoint.parse(text)) is expected


def test_only_internet_endpoints_have_addresses() -> None:
    """A unix socket has nothing to resolve."""
    assert resolve(Endpoint.parse("unix:/x")) == ()


def test_of_simultaneous_binders_one_wins() -> None:
    """Several that bind and listen on one port at once: exactly one succeeds."""
    with closing(bind(TcpEndpoint("127.0.0.1", 0))) as first:
        endpoint = TcpEndpoint("127.0.0.1", ports(first)[0])
    barrier = threading.Barrier(4)
    winners: list[Bound] = []

    def compete() -> None:
        barrier.wait()
        try:
            bound = bind(endpoint)
        except TamedError:
            return
        try:
            bound.sockets[0].listen()
        except OSError:
            bound.close()
        else:
            winners.append(bound)

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for winner in winners:
        winner.close()
    assert len(winners) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "import tamed.net.bind",
        "import tamed.net.inherit",
        "from tamed.net.bind import bind",
    ],
)
def test_binding_does_not_import_asyncio(statement: str) -> None:
    """A supervisor can bind without loading asyncio."""
    program = f"{statement}\nimport sys\nprint('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
