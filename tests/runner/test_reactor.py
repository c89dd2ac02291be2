"""The supervisor's event loop."""

import gc
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tamed.supervisor.loop import Reactor
from tests.fresh import loaded_by


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A reactor on the real clock."""
    with closing(Reactor()) as made:
        yield made


def test_timers_are_called_in_the_order_of_their_times() -> None:
    """Timers are called in the order of their times, not in the order of their creation."""
    now = 0.0
    called: list[str] = []
    with closing(Reactor(lambda: now)) as reactor:

        def second() -> None:
            called.append("second")
            reactor.stop()

        reactor.later(2.0, second)
        reactor.later(1.0, lambda: called.append("first"))
        now = 3.0
        reactor.run()
    assert called == ["first", "second"]


def test_a_cancelled_timer_keeps_nothing(reactor: Reactor) -> None:
    """Its time may be hours away, as that of a long drain is; each reload has some."""

    class Helper:
        def end(self) -> None: ...

    helper = Helper()
    kept = weakref.ref(helper)
    reactor.later(3600, helper.end).cancel()
    del helper
    gc.collect()
    assert kept() is None


def test_a_cancelled_timer_is_not_called(reactor: Reactor) -> None:
    """A cancelled timer does not call, and does not delay others."""
    called: list[str] = []
    reactor.later(0.0, lambda: called.append("cancelled")).cancel()
    reactor.later(0.001, reactor.stop)
    reactor.run()
    assert called == []


def test_a_descriptor_that_can_be_read_calls(reactor: Reactor) -> None:
    """Data in a pipe wakes its reader."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as end:
        read: list[bytes | None] = []

        def take() -> None:
            read.append(end.read(4))
            reactor.stop()

        reactor.watch(end, take)
        os.write(writing, b"poem")
        reactor.run()
        reactor.unwatch(end)
    os.close(writing)
    assert read == [b"poem"]


def test_a_descriptor_closed_in_the_same_round_is_not_called(reactor: Reactor) -> None:
    """Of two ready descriptors, one that the other's callback has closed is not called."""
    pipes = [os.pipe(), os.pipe()]
    ends = [os.fdopen(reading, "rb", buffering=0) for reading, _ in pipes]
    called: list[int] = []

    def take_the_other_away(index: int) -> None:
        called.append(index)
        reactor.unwatch(ends[1 - index])
        reactor.stop()

    for index, end in enumerate(ends):
        reactor.watch(end, lambda index=index: take_the_other_away(index))  # type: ignore[misc]
    for _, writing in pipes:
        os.write(writing, b"x")
    reactor.run()
    for end, (_, writing) in zip(ends, pipes, strict=True):
        end.close()
        os.close(writing)
    assert len(called) == 1


_SIGNALLED = """
import os, signal
from tamed.supervisor.loop import Reactor
reactor = Reactor()
def caught(number):
    print(number.name)
    if number is signal.SIGTERM:
        reactor.stop()
reactor.on_signal = caught
reactor.hold_signals([signal.SIGHUP, signal.SIGTERM])
os.kill(os.getpid(), signal.SIGHUP)
reactor.later(0, lambda: os.kill(os.getpid(), signal.SIGTERM))
reactor.run()
reactor.close()
"""


def test_signals_are_called_from_the_loop() -> None:
    """``on_signal`` is called for each signal, also for one that arrived before the loop ran."""
    done = subprocess.run([sys.executable, "-c", _SIGNALLED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [signal.SIGHUP.name, signal.SIGTERM.name]


def test_it_does_without_asyncio() -> None:
    """The supervisor's loop loads neither asyncio nor logging."""
    assert not loaded_by("import tamed.supervisor.loop") & {"asyncio", "logging"}


def test_a_descriptor_with_room_calls_once(reactor: Reactor) -> None:
    """A full descriptor calls once, when its reader has made room, and can be read before and after."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        called: list[str] = []
        reactor.watch(ours, lambda: called.append(ours.recv(100).decode()))
        with suppress(BlockingIOError):
            while ours.send(bytes(65536)):
                continue
        reactor.once_writable(ours, lambda: called.append("room"))
        theirs.send(b"meanwhile")
        reactor.turn(1)
        with suppress(BlockingIOError):
            while theirs.recv(65536):
                continue
        reactor.turn(1)
        reactor.turn(0)
        theirs.send(b"after")
        reactor.turn(1)
        reactor.unwatch(ours)
    assert called == ["meanwhile", "room", "after"]
