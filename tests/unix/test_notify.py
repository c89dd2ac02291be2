"""The service manager, as far as a socket that speaks for it can tell."""

import array
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.unix.notify import Notifier, watchdog_interval
from tests.patience import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the manager listens."""
    return tmp_path / "notify"


@pytest.fixture
def manager(path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(PATIENCE)
        yield listening


def test_messages(manager: socket.socket, path: Path) -> None:
    """Each call is one message, in the words of sd_notify(3)."""
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": str(path)})
    assert notifier.is_connected
    assert notifier.ready("serving\npoems")
    assert notifier.ready()
    assert notifier.status("draining")
    assert notifier.stopping()
    assert notifier.stopping("by request")
    assert notifier.watchdog()
    assert notifier.extend_timeout(1.5)
    received = [manager.recv(999) for _ in range(7)]
    assert received == [
        b"READY=1\nSTATUS=serving poems",
        b"READY=1",
        b"STATUS=draining",
        b"STOPPING=1",
        b"STOPPING=1\nSTATUS=by request",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
    ]
    notifier.close()


def test_reloading_has_the_time(manager: socket.socket, path: Path) -> None:
    """A reload is announced with the monotonic time in microseconds, without which systemd ignores it."""
    notifier = Notifier(str(path), monotonic=lambda: 12.3456789)
    assert notifier.reloading()
    assert notifier.reloading("new poems")
    assert manager.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=12345678"
    assert manager.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=12345678\nSTATUS=new poems"
    notifier.close()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    own = Notifier(str(path))
    own.reloading()
    own.close()
    sent = int(manager.recv(999).partition(b"MONOTONIC_USEC=")[2])
    assert before <= sent <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_abstract_address() -> None:
    """A path that begins with @ is an address without a file."""
    name = f"tamed-test-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        notifier = Notifier(f"@{name}")
        assert notifier.ready()
        assert manager.recv(999) == b"READY=1"
        notifier.close()


def test_descriptors(manager: socket.socket, path: Path) -> None:
    """Descriptors go with a message, as the manager's store for them wants it."""
    notifier = Notifier(str(path))
    with (path.parent / "file").open("w") as file:
        assert notifier.send({"FDSTORE": "1", "FDNAME": "poem"}, [file.fileno()])
        data, ancillary, _, _ = manager.recvmsg(999, socket.CMSG_SPACE(4))
        received = array.array("i", ancillary[0][2])[0]
        assert data == b"FDSTORE=1\nFDNAME=poem"
        assert os.path.sameopenfile(received, file.fileno())
        os.close(received)
    notifier.close()


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234", "/no/such/socket"])
def test_nobody_to_tell(address: str) -> None:
    """Without a manager, or with an invalid address, every call returns that nothing was sent."""
    notifier = Notifier(address)
    assert not notifier.is_connected
    assert not notifier.ready()
    assert not notifier.watchdog()
    notifier.close()
    assert not Notifier.from_environ({}).ready()


def test_manager_that_is_gone_and_comes_back(path: Path) -> None:
    """A manager that has ended does no harm; one that has restarted gets messages again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(path))
        notifier = Notifier(str(path))
        assert notifier.ready()
    assert not notifier.watchdog()
    path.unlink()
    assert not notifier.watchdog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(path))
        assert notifier.watchdog()
        assert second.recv(999) == b"WATCHDOG=1"
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "42"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """The manager's wish is in microseconds, and for one process; what makes no sense is no wish."""
    assert watchdog_interval(environ, pid=42) == seconds


def test_watchdog_of_this_process() -> None:
    """Without a pid the wish must be for the process that asks."""
    assert watchdog_interval({"WATCHDOG_USEC": "1", "WATCHDOG_PID": str(os.getpid())}) == 1e-6
    assert watchdog_interval({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, os.getpid()) is None
