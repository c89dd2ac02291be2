"""The proxy: from a client's first byte to the line in the log."""

import asyncio
import time
from dataclasses import dataclass

from tamed.builtin._dial import open_stream
from tamed.builtin._framing import Malformed
from tamed.builtin._idle import IdleWatch
from tamed.builtin._login import LoginGate
from tamed.builtin._relay import Patience, Relay, Stream
from tamed.builtin._socks._association import Association
from tamed.builtin._socks._messages import Code, Command
from tamed.builtin._socks._negotiation import Asked, NotLetIn, negotiate
from tamed.builtin._socks._reach import Unreached, reach
from tamed.builtin._socks._rules import TargetRules
from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import address_text
from tamed.service.service import Service

__all__ = ["Limits", "Proxy"]

log = own_logger("tamed.builtin")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for the conversation up to the request, to connect, and for the connection itself."""

    handshake: float
    connect: float
    relay: Patience


class Proxy(Service):
    """Serves SOCKS 4, 4a and 5 on any connection, by `serve`.

    With a ``gate``, whose users are read before the service starts, only clients of SOCKS 5 with a user and a
    password are let in. Each connection is one line in the log, with its byte counts.
    """

    def __init__(
        self,
        rules: TargetRules,
        limits: Limits,
        *,
        gate: LoginGate | None = None,
        udp: bool = True,
        name: str = "proxy",
    ) -> None:
        super().__init__(name)
        self._rules = rules
        self._limits = limits
        self._gate = gate
        self._udp = udp

    async def prepare(self) -> None:
        """Read the users' file, while that may be read."""
        if self._gate is not None:
            self._gate.users.load()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        client = Stream(reader, writer)
        address = writer.get_extra_info("peername")
        peer = address_text(address)
        asked = await self._negotiate(client, peer, address[0] if isinstance(address, tuple) else "unix")
        if asked is None:
            return
        try:
            await self._fulfil(client, peer, asked)
        except Unreached as error:
            log.info("%s cannot have %s: %s", _who(peer, asked), asked.request.target, error.why)
            writer.write(asked.answer(error.code))

    async def _negotiate(self, client: Stream, peer: str, host: str) -> Asked | None:
        try:
            async with asyncio.timeout(self._limits.handshake):
                return await negotiate(client, self._gate, host)
        except TimeoutError:
            log.info("%s asked for nothing within %g s", peer, self._limits.handshake)
        except NotLetIn as error:
            log.warning("%s is not let in: %s", peer, error)
        except Malformed as error:
            log.info("%s is not understood: %s", peer, error)
        except (OSError, EOFError) as error:
            log.debug("%s left before it asked for anything: %s", peer, reason(error))
        return None

    async def _fulfil(self, client: Stream, peer: str, asked: Asked) -> None:
        command = asked.request.command
        if command == Command.CONNECT:
            await self._connect(client, peer, asked)
        elif command == Command.UDP_ASSOCIATE and asked.version == 5 and self._udp:
            await self._associate(client, peer, asked)
        else:
            raise Unreached(Code.COMMAND_NOT_SUPPORTED, f"command {command} is not supported")

    async def _connect(self, client: Stream, peer: str, asked: Asked) -> None:
        begun = time.monotonic()
        target = asked.request.target
        sock = await reach(target, self._rules, self._limits.connect)
        relay = Relay(client, await open_stream(sock), self._limits.relay)
        host, port, *_ = sock.getsockname()
        client.writer.write(asked.answer(Code.SUCCEEDED, host, port))
        ending = "the server stopped"
        try:
            ending = await relay.run()
        finally:
            _log_end(f"{_who(peer, asked)} to {target}", relay, begun, ending)

    async def _associate(self, client: Stream, peer: str, asked: Asked) -> None:
        begun = time.monotonic()
        ours, theirs = (client.writer.get_extra_info(name) for name in ("sockname", "peername"))
        if not isinstance(theirs, tuple):
            raise Unreached(Code.FAILURE, "there are no packets beside a unix socket")
        watch = IdleWatch(self._limits.relay.idle)
        association = Association(theirs[0], self._rules, self._limits.connect, watch.moved)
        ending = "closed"
        try:
            client.writer.write(asked.answer(Code.SUCCEEDED, *await association.open(ours[0])))
            async with watch:
                while await client.reader.read(4096):  # it has nothing to say, but stays as long as it lasts
                    pass
        except TimeoutError:
            ending = f"no packet for {watch.seconds:g} s"
        except OSError as error:
            ending = reason(error)
        finally:
            association.close()
            _log_end(f"{_who(peer, asked)} by UDP", association, begun, ending)


def _who(peer: str, asked: Asked) -> str:
    return f"{peer} ({asked.user!r})" if asked.user else peer


def _log_end(what: str, counts: Relay | Association, begun: float, ending: str) -> None:
    seconds = time.monotonic() - begun
    log.info(
        "%s: %d bytes sent, %d received, %.1f s, %s", what, counts.sent, counts.received, seconds, ending
    )
