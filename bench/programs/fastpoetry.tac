"""The poem for twistd: `twistd -y fastpoetry.tac`, with what to do in the environment, as in services.py.

BENCH_KIND is ``poem`` or ``poem-log`` (a line for each connection), or ``lines`` (BENCH_LINES of them as fast
as it can); the port is BENCH_PORT. The service and the server are those of Twisted's own tutorial.
"""

import os
from pathlib import Path

from twisted.application import internet, service
from twisted.internet import reactor, task
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python import log

poem = Path(os.environ["BENCH_POEM"]).read_bytes()
kind = os.environ["BENCH_KIND"]


class PoetryProtocol(Protocol):
    def connectionMade(self):
        if kind == "poem-log":
            log.msg("sending %d bytes of poetry to %s" % (len(poem), self.transport.getPeer()))
        self.transport.write(poem)
        self.transport.loseConnection()


class PoetryFactory(ServerFactory):
    protocol = PoetryProtocol
    noisy = False


class Lines(service.Service):
    def startService(self):
        self.go = Path(os.environ["BENCH_GO"])
        self.looking = task.LoopingCall(self.look)
        self.looking.start(0.002)

    def look(self):
        if not self.go.exists():
            return
        self.looking.stop()
        size = len(poem)
        for number in range(int(os.environ["BENCH_LINES"])):
            log.msg("sending %d bytes of poetry to %s" % (size, number))


application = service.Application("fastpoetry")
if kind == "lines":
    Lines().setServiceParent(application)
else:
    backlog = int(os.environ.get("BENCH_BACKLOG", "50"))  # Twisted's own
    server = internet.TCPServer(
        int(os.environ["BENCH_PORT"]), PoetryFactory(), backlog=backlog, interface="127.0.0.1"
    )
    server.setServiceParent(application)
