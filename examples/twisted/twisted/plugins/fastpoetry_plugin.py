"""The fast poetry service as a Twisted plugin.

tamed run --plugin-dir . twisted:fastpoetry --port 10000 --poem ../poetry/ecstasy.txt
tamed twistd fastpoetry --port 10000 --poem ../poetry/ecstasy.txt
"""

from pathlib import Path

from twisted.application import internet, service
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.plugin import IPlugin
from twisted.python import log, usage
from zope.interface import implementer


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


class Options(usage.Options):
    optParameters = [  # noqa: RUF012 - how Twisted wants it
        ["port", "p", 10000, "The port number to listen on.", int],
        ["poem", None, None, "The file containing the poem.", Path],
        ["iface", None, "localhost", "The interface to listen on."],
    ]

    def postOptions(self):
        if self["poem"] is None:
            raise usage.UsageError("--poem is missing")


@implementer(service.IServiceMaker, IPlugin)
class PoetryServiceMaker:
    tapname = "fastpoetry"
    description = "A fast poetry service."
    options = Options

    def makeService(self, options):
        top_service = service.MultiService()
        poetry_service = PoetryService(options["poem"])
        poetry_service.setServiceParent(top_service)
        factory = PoetryFactory(poetry_service)
        tcp_service = internet.TCPServer(options["port"], factory, interface=options["iface"])
        tcp_service.setServiceParent(top_service)
        return top_service


# Found by this instance, whatever it is called.
service_maker = PoetryServiceMaker()
