"""The reactor: Twisted's own for asyncio, on an event loop that Tamed runs and ends.

It differs from Twisted's in four things. It can be made before there is an event loop, because code that is
loaded wants it then, and it moves to the loop that runs. It never runs or stops that loop. It listens on
sockets from the socket source of the current `Surroundings`. And it knows the connections that it serves, so
that they can be drained.
"""

import asyncio
import os
import socket
import sys
from typing import Any, Never, cast

from twisted.internet import error
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.main import installReactor
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.python.log import callWithLogger

from tamed.errors import ApplicationFailed
from tamed.net import Listener
from tamed.twisted._children import Children
from tamed.twisted._connections import Connections
from tamed.twisted._life import ReactorLife
from tamed.twisted._no_loop import NoLoop
from tamed.twisted._ports import TcpConnection, TcpPort, UdpPort, UnixConnection, UnixPort
from tamed.twisted._sourced import adopted, of_tcp, of_udp, of_unix

__all__ = ["TamedReactor", "install"]

_REACTOR = "twisted.internet.reactor"
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class TamedReactor(AsyncioSelectorReactor):
    """Twisted's reactor on Tamed's event loop.

    ``connections`` are those that it serves, and its ports. ``life`` is how it is started and ended.
    """

    def __init__(self) -> None:
        super().__init__(cast(asyncio.AbstractEventLoop, NoLoop()))
        self.connections = Connections()
        self.life = ReactorLife(self)
        self._children: Children | None = None
        self._is_ending = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return self._asyncioEventloop

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Move to the loop that runs now, with all that was begun before there was one."""
        before, self._asyncioEventloop = self._asyncioEventloop, loop
        for reader, descriptor in self._readers.items():
            loop.add_reader(descriptor, callWithLogger, reader, self._readOrWrite, reader, True)
        for writer, descriptor in self._writers.items():
            loop.add_writer(descriptor, callWithLogger, writer, self._readOrWrite, writer, False)
        if isinstance(before, NoLoop):
            before.hand_over(loop)
        self._children = Children(loop)
        self._scheduledAt = None
        self._reschedule()

    def detach(self) -> None:
        """Leave the loop, which is about to end."""
        loop, self._asyncioEventloop = self._asyncioEventloop, cast(asyncio.AbstractEventLoop, NoLoop())
        for descriptor in self._readers.values():
            loop.remove_reader(descriptor)
        for descriptor in self._writers.values():
            loop.remove_writer(descriptor)
        if self._timerHandle is not None:
            self._timerHandle.cancel()
        self._scheduledAt = self._timerHandle = None
        if self._children is not None:
            self._children.close()
            self._children = None

    def end(self) -> None:
        """Fire the triggers of a shutdown, as the end of Twisted's own loop does."""
        self._is_ending = True
        self._stopped = True
        self.addSystemEventTrigger("after", "shutdown", self._renew)
        self.fireSystemEvent("shutdown")

    def abandon(self) -> None:
        """End at once, without the triggers that have not been fired."""
        self._is_ending = True
        self._eventTriggers.pop("shutdown", None)
        self.crash()
        self.disconnectAll()
        if self.threadpool is not None:
            self._stopThreadPool()
        self._renew()

    def _renew(self) -> None:
        # Twisted adds these two once, when a reactor is made; ours may start again, in another loop.
        self.addSystemEventTrigger("during", "shutdown", self.crash)
        self.addSystemEventTrigger("during", "shutdown", self.disconnectAll)
        self._is_ending = False

    def run(self, installSignalHandlers: bool = True) -> Never:  # noqa: N803, FBT - Twisted's signature
        """Refuse: Tamed runs the loop."""
        raise ApplicationFailed(
            "the program calls reactor.run()", "Tamed runs the reactor itself", "leave that call out"
        )

    def stop(self) -> None:
        """Ask the application to end. Raises ReactorNotRunning as Twisted's does."""
        if self._stopped:
            raise error.ReactorNotRunning("Can't stop reactor that isn't running.")
        self._stopped = True
        self.life.ask_to_stop()

    def crash(self) -> None:
        """Be not running any more; if it is the application's own wish, end that too."""
        ReactorBase.crash(self)  # not that of the class above, which stops the event loop
        if not self._is_ending:
            self.life.ask_to_stop()

    def spawnProcess(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802
        """Start a child process, and notice its end. See IReactorProcess."""
        transport = super().spawnProcess(*arguments, **options)
        if self._children is not None and transport.pid is not None:
            self._children.watch(transport.pid)
        return transport

    def listenTCP(  # noqa: N802
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a socket from the socket source. See IReactorTCP."""
        own = self.running and port == 0
        listener = of_tcp(port, interface, own=own)
        opened: Any = TcpPort(port, factory, backlog, interface, self)
        opened.open(listener, own=own)
        return cast(IListeningPort, opened)

    def listenUNIX(  # noqa: N802
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: N803
    ) -> IListeningPort:
        """Listen on a socket from the socket source, which copes with what was left. See IReactorUNIX."""
        listener = of_unix(address, mode)
        opened: Any = UnixPort(os.fsencode(address), factory, backlog, mode, self)
        opened.open(listener)
        return cast(IListeningPort, opened)

    def listenUDP(  # noqa: N802
        self,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,  # noqa: N803
    ) -> IListeningPort:
        """Receive on a socket from the socket source. See IReactorUDP."""
        listener = of_udp(port, interface, own=self.running)
        opened: Any = UdpPort(port, protocol, interface, maxPacketSize, self)
        opened.open(listener, own=self.running)
        return cast(IListeningPort, opened)

    def adoptStreamPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """Listen on a socket that the program has, or was passed. See IReactorSocket."""
        listener = self._adopted(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        name = listener.sockets[0].getsockname()
        opened: Any
        if addressFamily == socket.AF_UNIX:
            opened = UnixPort(name, factory, reactor=self)
        else:
            opened = TcpPort(name[1], factory, interface=name[0], reactor=self)
        opened.open(listener, own=listener.sole)
        return cast(IListeningPort, opened)

    def adoptDatagramPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        protocol: AbstractDatagramProtocol,
        maxPacketSize: int = 8192,  # noqa: N803
    ) -> IListeningPort:
        """Receive on a socket that the program has, or was passed. See IReactorSocket."""
        if addressFamily == socket.AF_UNIX:
            raise error.UnsupportedAddressFamily(addressFamily)
        listener = self._adopted(fileDescriptor, addressFamily, socket.SOCK_DGRAM)
        host, port = listener.sockets[0].getsockname()[:2]
        opened: Any = UdpPort(port, protocol, host, maxPacketSize, self)
        opened.open(listener, own=listener.sole)
        return cast(IListeningPort, opened)

    def adoptStreamConnection(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> Any:
        """Serve a connection that another process has accepted. See IReactorSocket."""
        if addressFamily not in _FAMILIES:
            raise error.UnsupportedAddressFamily(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return UnixConnection._fromConnectedSocket(fileDescriptor, factory, self)
        return TcpConnection._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)

    @staticmethod
    def _adopted(descriptor: int, family: int, kind: socket.SocketKind) -> Listener:
        if family not in _FAMILIES:
            raise error.UnsupportedAddressFamily(family)
        return adopted(descriptor, family, kind)


def install() -> TamedReactor:
    """Return the reactor of this process, which is installed if none is.

    Raises ApplicationFailed if there is another one.
    """
    found: Any = sys.modules.get(_REACTOR)
    if found is None:
        found = TamedReactor()
        installReactor(found)
    if not isinstance(found, TamedReactor):
        raise ApplicationFailed(
            f"Twisted's reactor is {type(found).__name__} already",
            "Tamed runs Twisted on its own event loop",
            "leave out what installs another reactor",
        )
    return found
