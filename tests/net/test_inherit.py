import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tamed.errors import ConfigurationError, SystemRefused
from tamed.net.endpoint import FdEndpoint, SystemdEndpoint
from tamed.net.inherit import Inheritance

PID = 4711
NOTHING = Inheritance({}, PID)


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    """Give a listening socket as a parent leaves it: blocking, and inheritable."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        yield sock


@contextmanager
def passed(*sockets: socket.socket, names: str | None = None, **environ: str) -> Iterator[Inheritance]:
    """Pass sockets as systemd does, one descriptor after the other, though not from 3 on."""
    with ExitStack() as undo:
        first = fcntl.fcntl(sockets[0].fileno(), fcntl.F_DUPFD, 400)
        undo.callback(os.close, first)
        for fd, sock in enumerate(sockets[1:], first + 1):
            undo.callback(os.close, os.dup2(sock.fileno(), fd))
        told = {"LISTEN_PID": str(PID), "LISTEN_FDS": str(len(sockets))}
        if names is not None:
            told["LISTEN_FDNAMES"] = names
        yield Inheritance(told | environ, PID, first)


@contextmanager
def taken(
    source: Inheritance, endpoint: FdEndpoint | SystemdEndpoint, kind: socket.SocketKind = socket.SOCK_STREAM
) -> Iterator[list[object]]:
    """Give the names of the sockets that an endpoint has, and close them."""
    sockets = source.sockets(endpoint, kind)
    try:
        yield [sock.getsockname() for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def test_a_descriptor_is_handed_out_as_a_duplicate(inherited: socket.socket) -> None:
    """The duplicate is non-blocking and not inheritable; the original stays, for the next start."""
    endpoint = FdEndpoint(inherited.fileno())
    for _ in range(2):
        (sock,) = NOTHING.sockets(endpoint, socket.SOCK_STREAM)
        with sock:
            assert sock.fileno() != inherited.fileno()
            assert sock.getsockname() == inherited.getsockname()
            assert not sock.getblocking()
            assert not sock.get_inheritable()
    assert not inherited.get_inheritable()
    assert inherited.getsockname()[1] > 0


def test_a_closed_descriptor() -> None:
    """A descriptor that is not open is named."""
    with pytest.raises(ConfigurationError) as caught:
        NOTHING.sockets(FdEndpoint(999_999), socket.SOCK_STREAM)
    assert str(caught.value) == (
        "cannot listen on fd://999999: descriptor 999999 is not open; "
        "the parent must leave it open for this process"
    )


def test_a_descriptor_that_is_no_socket(tmp_path: Path) -> None:
    """A file is not taken for a socket."""
    with (tmp_path / "x").open("w") as file, pytest.raises(ConfigurationError, match=r"\d+ is not a socket$"):
        NOTHING.sockets(FdEndpoint(file.fileno()), socket.SOCK_STREAM)


def test_a_socket_that_is_a_connection() -> None:
    """One connection, as ``Accept=yes`` passes it, is not a socket to listen on."""
    one, other = socket.socketpair()
    with (
        one,
        other,
        pytest.raises(ConfigurationError, match="the socket unit needs Accept=no"),
    ):
        NOTHING.sockets(FdEndpoint(one.fileno()), socket.SOCK_STREAM)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket_without_an_address(family: int) -> None:
    """A socket that its maker forgot to bind is refused."""
    with socket.socket(family) as sock, pytest.raises(ConfigurationError, match="is not bound to an address"):
        NOTHING.sockets(FdEndpoint(sock.fileno()), socket.SOCK_STREAM)


def test_a_socket_of_a_family_that_we_do_not_serve() -> None:
    """A socket that is neither internet nor unix is refused."""
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock,
        pytest.raises(ConfigurationError, match="is neither an internet nor a unix socket"),
    ):
        NOTHING.sockets(FdEndpoint(sock.fileno()), socket.SOCK_STREAM)


def test_a_socket_of_the_wrong_kind(inherited: socket.socket) -> None:
    """A stream socket does not serve datagrams."""
    with pytest.raises(
        ConfigurationError, match="it is a stream socket, but this server needs a datagram socket"
    ):
        NOTHING.sockets(FdEndpoint(inherited.fileno()), socket.SOCK_DGRAM)


def test_running_out_of_descriptors(inherited: socket.socket) -> None:
    """If there is no descriptor for the duplicate, that is the system's refusal, not the setup's."""
    program = (
        "import os, resource, socket\n"
        "from tamed.net.endpoint import FdEndpoint; from tamed.net.inherit import Inheritance\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, sock.fileno() + 1))\n"
        "try: Inheritance({}, 1).sockets(FdEndpoint(sock.fileno()), socket.SOCK_STREAM)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"{SystemRefused.__name__} cannot listen on fd://")


def test_sockets_are_found_by_their_name(inherited: socket.socket) -> None:
    """A name stands for its socket, wherever it is in the list."""
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        passed(inherited, other, names="web:admin") as source,
        taken(source, SystemdEndpoint("admin")) as found,
    ):
        assert found == [other.getsockname()]


def test_sockets_that_share_a_name_come_together(inherited: socket.socket) -> None:
    """One unit with several ``ListenStream=`` is one listener with several sockets."""
    with (
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.create_server(("127.0.0.1", 0)) as third,
        passed(inherited, second, third, names="web:other:web") as source,
        taken(source, SystemdEndpoint("web")) as found,
    ):
        assert found == [inherited.getsockname(), third.getsockname()]


def test_no_name_is_the_only_name(inherited: socket.socket) -> None:
    """``systemd://`` stands for whatever was passed under one name."""
    with passed(inherited, inherited, names="web:web") as source, taken(source, SystemdEndpoint()) as found:
        assert found == [inherited.getsockname()] * 2


def test_no_name_is_not_enough_for_several(inherited: socket.socket) -> None:
    """``systemd://`` with several names says which there are."""
    with (
        passed(inherited, inherited, names="web:admin") as source,
        pytest.raises(ConfigurationError) as caught,
    ):
        source.sockets(SystemdEndpoint(), socket.SOCK_STREAM)
    assert str(caught.value) == (
        "cannot listen on systemd://: sockets of several names were passed: admin, web; "
        "name one: systemd://admin"
    )


def test_sockets_without_names_are_unknown(inherited: socket.socket) -> None:
    """Without LISTEN_FDNAMES every socket is called ``unknown``, as sd_listen_fds_with_names(3) has it."""
    with passed(inherited) as source:
        for name in ("", "unknown"):
            with taken(source, SystemdEndpoint(name)) as found:
                assert found == [inherited.getsockname()]


def test_a_name_may_have_streams_and_datagrams(inherited: socket.socket) -> None:
    """Of a unit with both kinds, each server gets its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        with passed(inherited, datagrams, names="dns:dns") as source:
            with taken(source, SystemdEndpoint("dns")) as found:
                assert found == [inherited.getsockname()]
            with taken(source, SystemdEndpoint("dns"), socket.SOCK_DGRAM) as found:
                assert found == [datagrams.getsockname()]


def test_an_unknown_name_is_reported_with_the_known_ones(inherited: socket.socket) -> None:
    """A name that was not passed is answered with those that were."""
    with passed(inherited, names="web.socket") as source, pytest.raises(ConfigurationError) as caught:
        source.sockets(SystemdEndpoint("web"), socket.SOCK_STREAM)
    assert str(caught.value) == (
        "cannot listen on systemd://web: no socket of this name was passed, only: web.socket; "
        "see FileDescriptorName= in the socket unit"
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LISTEN_PID": "1"}, r"were passed to process 1 \(LISTEN_PID\), but this is process 4711"),
        ({"LISTEN_PID": ""}, "LISTEN_PID is '', not a number"),
        ({"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two', not a number"),
        ({"LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}, r"no sockets were passed \(LISTEN_FDS is 0\)"),
        ({"LISTEN_FDNAMES": "a:b"}, "LISTEN_FDS is 1, but LISTEN_FDNAMES has 2 names"),
    ],
    ids=["another process", "no process", "no number", "none", "too many names"],
)
def test_what_systemd_says_is_checked(inherited: socket.socket, environ: dict[str, str], said: str) -> None:
    """What does not fit together is refused, with the variable that says so."""
    with passed(inherited, **environ) as source, pytest.raises(ConfigurationError, match=said):
        source.sockets(SystemdEndpoint(), socket.SOCK_STREAM)


def test_nothing_passed_by_systemd() -> None:
    """Without socket activation, the endpoint says how to get it."""
    with pytest.raises(ConfigurationError) as caught:
        NOTHING.sockets(SystemdEndpoint("web"), socket.SOCK_STREAM)
    assert str(caught.value) == (
        "cannot listen on systemd://web: no sockets were passed (LISTEN_FDS is not set); "
        "start this by a systemd socket unit; to try it: systemd-socket-activate -l 10000 COMMAND"
    )


PROGRAM = """
import asyncio
from tamed.net.endpoint import Endpoint
from tamed.net.listen import LocalSource

async def main():
    listener = await LocalSource().listen(Endpoint.parse("systemd://verse"))
    connection, _ = await asyncio.get_running_loop().sock_accept(listener.sockets[0])
    connection.sendall(", ".join([str(listener.shared), *listener.addresses]).encode())

asyncio.run(main())
"""


def test_real_socket_activation(tmp_path: Path) -> None:
    """Started by systemd's own tool, a process serves from the socket that it was passed."""
    if (activate := shutil.which("systemd-socket-activate")) is None:
        pytest.skip("systemd-socket-activate is not installed")
    path = tmp_path / "x.sock"
    environ = [f"-E{name}" for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ]
    command = [activate, "-l", str(path), "--fdname=verse", *environ, sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # "Listening on ..."
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.recv(1000).decode() == f"True, unix:{path}"
        assert process.wait() == 0
