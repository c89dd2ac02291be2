"""A fast poetry service for Twisted; nothing in it knows of Tamed.

    tamed run fastpoetry.tac
    tamed start --workers 4 fastpoetry.tac
    tamed twistd --nodaemon --python fastpoetry.tac
"""

from pathlib import Path

from twisted.application import internet, service
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python import log

PORT = 10000
INTERFACE = "localhost"
POEM = Path(__file__).parent.parent / "poetry" / "ecstasy.txt"


class PoetryProtocol(Protocol):
    def connectionMade(self):
        poem = self.factory.service.poem
        log.msg(f"sending {len(poem)} bytes of poetry to {self.transport.getPeer()}")
        self.transport.write(poem)
        self.transport.loseConnection()


class PoetryFactory(ServerFactory):
    protocol = PoetryProtocol

    def __init__(self, service):
        self.service = service


class PoetryService(service.Service):
    def __init__(self, file):
        self.file = file

    def startService(self):
        service.Service.startService(self)
        self.poem = self.file.read_bytes()
        log.msg(f"loaded a poem from: {self.file}")


top_service = service.MultiService()

poetry_service = PoetryService(POEM)
poetry_service.setServiceParent(top_service)

tcp_service = internet.TCPServer(PORT, PoetryFactory(poetry_service), interface=INTERFACE)
tcp_service.setServiceParent(top_service)

application = service.Application("fastpoetry")
top_service.setServiceParent(application)
