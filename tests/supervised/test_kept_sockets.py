"""Daemons whose listening sockets the service manager keeps from one start to the next."""

import signal
import socket

from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Command, Tamed
from tests.supervised.store import Store, store_in


def connect(port: int) -> socket.socket:
    """Return a new client."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def poem_for(client: socket.socket) -> bytes:
    """Return what a client gets."""
    with client, client.makefile("rb") as stream:
        return stream.read()


def start(tamed: Tamed, store: Store, *options: str, port: int = 0) -> Command:
    """Start a daemon as the manager does, with what it keeps; wait until it is ready."""
    target = ["fastpoetry", "--listen", f"127.0.0.1:{port}", "--poem", str(tamed.poem)]
    tamed.before = store.before() if store.kept else []
    process = tamed.popen("run", *options, *target, env=store.env, pass_fds=store.descriptors)
    store.expect("READY")
    return process


def port_in(store: Store) -> int:
    """Return the port of the only socket in the store."""
    (sock,) = store.kept.values()
    return int(sock.getsockname()[1])


def test_clients_wait_while_the_supervisor_is_dead(tamed: Tamed) -> None:
    """The next start has the same port, which the kernel chose, and serves those who came in between."""
    with store_in(tamed.folder) as store:
        with start(tamed, store, "--workers", "1") as process:
            port = port_in(store)
            assert poem_for(connect(port)) == POEM
            process.send_signal(signal.SIGKILL)
            process.wait()
        client = connect(port)
        with start(tamed, store, "--workers", "1") as process:
            assert poem_for(client) == POEM
            assert port_in(store) == port
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        with connect(port):  # also after a stop: the manager decides whether it is one
            assert port_in(store) == port


def test_an_upgrade_knows_what_the_manager_keeps(tamed: Tamed) -> None:
    """The next program stores nothing twice, and removes what is not needed any more."""
    options = ("--name", "verse", "--workers", "1")
    with store_in(tamed.folder) as store, start(tamed, store, *options) as process:
        (name,) = store.kept
        with store.obeying():
            assert tamed("upgrade").status == 0
        assert list(store.kept) == [name]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert list(store.kept) == [name]


def test_a_process_without_workers_takes_the_address_and_not_the_socket(tamed: Tamed) -> None:
    """It has nothing stored, and what a supervisor has left there would be in its way."""
    with store_in(tamed.folder) as store:
        with start(tamed, store, "--workers", "1") as process:
            port = port_in(store)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        with start(tamed, store, port=port) as process:
            assert store.kept == {}
            assert poem_for(connect(port)) == POEM
