"""Twisted programs that fail to start: one line, the right status, and nothing left behind."""

import re
import socket
from contextlib import closing

import pytest

pytest.importorskip("twisted")

from tests.supervised.daemon import Tamed

_IMPORTS = """
import sys
from twisted.application import internet, service
from twisted.internet import defer, endpoints, protocol, reactor, task
application = service.Application("poetry")
factory = protocol.Factory()

class Bad(service.Service):
    def startService(self):
        return fail()

class Good(service.Service):
    def startService(self):
        print("good started", flush=True)
    def stopService(self):
        print("good stopped", flush=True)

Good().setServiceParent(application)
"""

_BAD = "Bad().setServiceParent(application)"
_LISTEN = "internet.StreamServerEndpointService(endpoint, factory).setServiceParent(application)"

FAILURES = {
    "raises while it is loaded": ("1 / 0", 70, "bad.tac raised while it was loaded: ZeroDivisionError"),
    "fails later": (
        "def fail(): return task.deferLater(reactor, 0.01, dict().__getitem__, 'rhyme')\n" + _BAD,
        70,
        "service poetry failed in start: KeyError: 'rhyme'",
    ),
    "exits": (
        "def fail(): sys.exit(7)\nBad().setServiceParent(application)",
        7,
        "",
    ),
    "exits while it is loaded": ("sys.exit(7)", 7, ""),
    "the port of its endpoint is in use": (
        f"endpoint = endpoints.TCP4ServerEndpoint(reactor, PORT, interface='127.0.0.1')\n{_LISTEN}",
        69,
        r"service poetry failed in prepare: cannot listen on 127.0.0.1:\d+: .* in use",
    ),
    "has no application": ("del application", 70, "bad.tac has no variable 'application'"),
}


HOW = {
    "raises while it is loaded": "twistd",
    "fails later": "start",
    "exits": "workers",
    "exits while it is loaded": "run",
    "the port of its endpoint is in use": "workers",
    "has no application": "twistd",
}
"""Each cause once, and each way to start at least once: they are independent."""


@pytest.mark.parametrize("what", FAILURES)
def test_a_start_that_fails(tamed: Tamed, what: str) -> None:
    """The message and the status tell the cause, however it is started; no file and no process is left."""
    program, status, message = FAILURES[what]
    how = HOW[what]
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        tamed.write("bad.tac", f"{_IMPORTS}\nPORT = {taken.getsockname()[1]}\n{program}\n")
        words = {
            "run": ("run", "--pid-file", "bad.pid"),
            "start": ("start", "--pid-file", "bad.pid"),
            "twistd": ("twistd", "--pidfile", "bad.pid", "--python"),
            "workers": ("run", "--workers", "2", "--pid-file", "bad.pid"),
        }[how]
        done = tamed(*words, "bad.tac")
    assert done.status == status, done
    if message:  # the last line, but for what the other worker says while it stops
        end = r"(.* \[\d\] .*\n)*" if how == "workers" else ""
        assert re.search(f"{message}.*\n{end}$", done.err), done
    assert not (tamed.folder / "bad.pid").exists()
    assert tamed.left() == {}


def test_what_had_started_is_stopped(tamed: Tamed) -> None:
    """Before the process ends; under twistd it is not."""
    program, status, _ = FAILURES["fails later"]
    tamed.write("bad.tac", _IMPORTS + program)
    done = tamed("run", "bad.tac")
    assert (done.status, done.out) == (status, "good started\ngood stopped\n")
