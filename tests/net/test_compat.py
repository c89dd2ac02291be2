"""What `net/` relies on in asyncio, uvloop and the socket module beyond their documentation, name by name."""

import asyncio
import importlib
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tamed.net._compat import LOOPS, WARNINGS_OF_WRITES, accept_of, is_error_of_closed_connection

pytestmark = pytest.mark.anyio

_HERE = f"Python {sys.version.split()[0]}: adapt net/_compat.py"


def source_of(module: str) -> bytes:
    """Return the code of a module, compiled or not, in which texts can be looked for."""
    file = importlib.import_module(module).__file__
    assert file is not None
    return Path(file).read_bytes()


def error_of(call: Callable[[], object]) -> Exception | None:
    """Return the exception of a call, if it raises one."""
    try:
        call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("module", LOOPS)
def test_event_loops_are_in_their_modules(module: str) -> None:
    """An error is told to be of a closed connection by the module that it is raised in."""
    if module.startswith("uvloop"):
        pytest.importorskip("uvloop")
    assert importlib.import_module(module)


@pytest.mark.parametrize("text", sorted(WARNINGS_OF_WRITES))
def test_asyncio_warns_in_these_words(text: str) -> None:
    """A warning is told to be of a write to a peer that has left by its text."""
    modules = ("asyncio.selector_events", "asyncio.sslproto")
    assert any(text.encode() in source_of(module) for module in modules), f"no {text!r} in {_HERE}"


async def test_errors_of_closed_connections_are_recognized() -> None:
    """A call of a closed transport does nothing, or raises an error that is recognized."""
    one, other = socket.socketpair()
    with closing(other):
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, one)
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls = (partial(transport.write, b"x"), transport.write_eof, transport.pause_reading)
        errors = [error for call in calls if (error := error_of(call)) is not None]
    unknown = [error for error in errors if not is_error_of_closed_connection(error)]
    assert not unknown, f"{unknown} are not recognized in {_HERE}"
    assert not is_error_of_closed_connection(RuntimeError("the handler is closed"))
    assert not is_error_of_closed_connection(None)


def test_a_socket_accepts_descriptors() -> None:
    """`socket.socket._accept` returns a descriptor and an address."""
    assert hasattr(socket.socket, "_accept"), f"no socket.socket._accept in {_HERE}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        fd, address = accept_of(server)()
        with socket.socket(fileno=fd) as accepted:
            assert address == client.getsockname() == accepted.getpeername()


def test_a_stream_protocol_has_the_error_of_its_end() -> None:
    """`StreamReaderProtocol._get_close_waiter` returns the future that `wait_closed` waits for."""
    assert hasattr(asyncio.StreamReaderProtocol, "_get_close_waiter"), (
        f"no asyncio.StreamReaderProtocol._get_close_waiter in {_HERE}"
    )
