"""A SOCKS proxy, as a plugin: from a client's first byte to the line in the log.

A client negotiates (its version, its login, its request). Then the proxy resolves the target, checks it
against the rules, connects, and relays bytes. It looks a name up once, and connects to the address that it
has checked.
"""

import asyncio
import errno
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tamed.builtin._login import LoginGate, TooManyFailures, is_local
from tamed.builtin._relay import (
    IdleTimeout,
    Relay,
    Stream,
    connect,
    log_end,
    look_up,
    open_stream,
    time_limit,
)
from tamed.builtin._socks.messages import (
    Code,
    Command,
    Greeting,
    Method,
    Request,
    RequestRefused,
    Target,
    encode_reply4,
    encode_reply5,
    parse_greeting,
    parse_login,
    parse_request4,
    parse_request5,
)
from tamed.builtin._socks.rules import TargetPattern, TargetRules
from tamed.builtin._socks.udp import UdpAssociation
from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net.bind import Address
from tamed.net.endpoint import Endpoint, TcpEndpoint, address_text
from tamed.net.framing import Malformed, read_message
from tamed.net.stream import StreamServer
from tamed.passwords import PasswordFile
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service

__all__ = ["AccessDenied", "NegotiatedRequest", "Options", "Proxy", "negotiate", "socks"]

log = own_logger("tamed.builtin")

_MOST_ADDRESSES: Final = 4
"""Maximum number of a name's addresses to try."""

_CODES: Final[dict[int | None, Code]] = {
    errno.ECONNREFUSED: Code.REFUSED,
    errno.ENETUNREACH: Code.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Code.HOST_UNREACHABLE,
    errno.EAFNOSUPPORT: Code.ADDRESS_NOT_SUPPORTED,
}

_LONGEST_DELAY: Final = 1.0
"""Maximum delay, in seconds, of the answer to a wrong password: programs wait less than people."""


@dataclass
class Options:
    """The options of ``socks``."""

    port: int = option(1080, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    users: Path | None = option(None, "File of NAME:HASH lines. Only these users are accepted.")
    open: bool = option(False, "Accept any client without a password, even from other machines.")
    allow: list[TargetPattern] = option(
        [],
        "Only allow these targets: a network, host, *.domain or *, with an optional :PORT.",
    )
    deny: list[TargetPattern] = option([], "Refuse these targets, even if they are allowed.")
    udp: bool = option(True, "Relay UDP packets, too.")
    handshake_timeout: Duration = option(Duration("10s"), "Longest time for a client to send its request.")
    connect_timeout: Duration = option(
        Duration("10s"), "Longest time for each address of a target to answer."
    )
    idle_timeout: Duration = option(Duration("5m"), "Longest time that a connection may be idle.")
    half_closed_timeout: Duration = option(
        Duration("1m"), "The same for a connection that one side has half closed."
    )
    max_connections: int = option(2000, "Maximum number of connections; further clients wait.")
    max_connections_per_address: int = option(
        100, "The same for one address; its further clients are refused."
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        exposed = [str(endpoint) for endpoint in self.endpoints if not is_local(endpoint)]
        if exposed and self.users is None and not self.open:
            raise ValueError(
                f"{exposed[0]} can be reached from elsewhere, and any client could use this machine as a"
                " proxy; use --users, or accept every client with --open"
            )

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints to listen on."""
        return self.listen or [TcpEndpoint(self.iface, self.port)]


@plugin
def socks(options: Options) -> Service:
    """A SOCKS proxy, versions 4, 4a and 5."""
    proxy = Proxy(options)
    server = StreamServer(
        options.endpoints,
        proxy.serve,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
        tls_handshake_timeout=options.handshake_timeout,
    )
    return MultiService("socks", proxy, server)


class Proxy(Service):
    """Serves SOCKS 4, 4a and 5 on any connection, by `serve`.

    With ``users``, which are read before the service starts, only clients of SOCKS 5 with a user and a
    password are accepted. Each connection is one line in the log, with its byte counts.
    """

    def __init__(self, options: Options) -> None:
        super().__init__("proxy")
        self._options = options
        self._rules = TargetRules(options.allow, options.deny)
        self._gate: LoginGate | None = None
        if options.users is not None:
            self._gate = LoginGate(PasswordFile(options.users), own_logger("socks"), hold=_LONGEST_DELAY)

    async def prepare(self) -> None:
        """Read the users' file, while the process may read it."""
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
        who = f"{peer} ({asked.user!r})" if asked.user else peer
        try:
            await self._fulfil(client, who, asked)
        except RequestRefused as error:
            log.info("%s cannot reach %s: %s", who, asked.request.target, error.why)
            writer.write(asked.reply(error.code))

    async def _negotiate(self, client: Stream, peer: str, host: str) -> "NegotiatedRequest | None":
        try:
            async with asyncio.timeout(self._options.handshake_timeout):
                return await negotiate(client, self._gate, host)
        except TimeoutError:
            log.info("%s sent no request within %g s", peer, self._options.handshake_timeout)
        except AccessDenied as error:
            log.warning("%s is refused: %s", peer, error)
        except Malformed as error:
            log.info("%s sent an invalid message: %s", peer, error)
        except (OSError, EOFError) as error:
            log.debug("%s left before its request: %s", peer, reason(error))
        return None

    async def _fulfil(self, client: Stream, who: str, asked: "NegotiatedRequest") -> None:
        command = asked.request.command
        if command == Command.CONNECT:
            await self._relay(client, who, asked)
        elif command == Command.UDP_ASSOCIATE and asked.version == 5 and self._options.udp:
            await self._associate(client, who, asked)
        else:
            raise RequestRefused(Code.COMMAND_NOT_SUPPORTED, f"command {command} is not supported")

    async def _relay(self, client: Stream, who: str, asked: "NegotiatedRequest") -> None:
        begun = time.monotonic()
        target = asked.request.target
        sock = await self._connect(target)
        options = self._options
        relay = Relay(client, await open_stream(sock), options.idle_timeout, options.half_closed_timeout)
        host, port, *_ = sock.getsockname()
        client.writer.write(asked.reply(Code.SUCCEEDED, host, port))
        ending = "the server stopped"
        try:
            ending = await relay.run()
        finally:
            log_end(log, f"{who} to {target}", relay, begun, ending)

    async def _associate(self, client: Stream, who: str, asked: "NegotiatedRequest") -> None:
        begun = time.monotonic()
        ours, theirs = (client.writer.get_extra_info(name) for name in ("sockname", "peername"))
        if not isinstance(theirs, tuple):
            raise RequestRefused(Code.FAILURE, "UDP is not possible over a unix socket")
        idle = IdleTimeout(self._options.idle_timeout)
        association = UdpAssociation(theirs[0], self._datagram_address, idle.reset)
        ending = "closed"
        try:
            client.writer.write(asked.reply(Code.SUCCEEDED, *await association.open(ours[0])))
            async with idle:
                while await client.reader.read(4096):  # discarded: the protocol has no data here
                    pass
        except TimeoutError:
            ending = f"no packet for {idle.seconds:g} s"
        except OSError as error:
            ending = reason(error)
        finally:
            association.close()
            log_end(log, f"{who} by UDP", association, begun, ending)

    async def _connect(self, target: Target) -> socket.socket:
        """Return a socket that is connected to an allowed address of a target. Raises RequestRefused."""
        failure = RequestRefused(Code.HOST_UNREACHABLE, "it has no address")
        for address in (await self._allowed_addresses(target))[:_MOST_ADDRESSES]:
            try:
                async with time_limit(self._options.connect_timeout):
                    return await connect(address)
            except OSError as error:
                failure = RequestRefused(_CODES.get(error.errno, Code.FAILURE), reason(error))
        raise failure

    async def _datagram_address(self, target: Target) -> Address:
        """Return an allowed address of a target for packets. Raises RequestRefused."""
        return (await self._allowed_addresses(target, socket.SOCK_DGRAM))[0]

    async def _allowed_addresses(
        self, target: Target, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> list[Address]:
        """Look a target up and return those of its addresses that the rules allow: one at least.

        Raises RequestRefused, before the name is looked up if the rules refuse the name.
        """
        if why := self._rules.refusal_of_name(target.host, target.port):
            raise RequestRefused(Code.NOT_ALLOWED, why)
        try:
            async with time_limit(self._options.connect_timeout):
                found = await look_up(target.host, target.port, kind)
        except OSError as error:
            why = f"its name cannot be resolved: {reason(error)}"
            raise RequestRefused(Code.HOST_UNREACHABLE, why) from None
        refusals = {each: self._rules.refusal(target.host, each.sockaddr[0], target.port) for each in found}
        allowed = [address for address, why in refusals.items() if not why]
        if not allowed:
            raise RequestRefused(Code.NOT_ALLOWED, next(iter(refusals.values()), "it has no address"))
        return allowed


class AccessDenied(Exception):
    """A client has not authenticated itself. It was answered; the text is for the log."""


@dataclass(frozen=True, slots=True)
class NegotiatedRequest:
    """A client's request, with the version and the user (empty: none) of its negotiation."""

    version: int
    request: Request
    user: str = ""

    def reply(self, code: Code, host: str = "0.0.0.0", port: int = 0) -> bytes:  # noqa: S104 - "no address"
        """Return the reply's bytes; the address is the one that is used for the client."""
        return encode_reply4(code) if self.version == 4 else encode_reply5(code, host, port)


async def negotiate(client: Stream, gate: LoginGate | None, host: str) -> NegotiatedRequest:
    """Negotiate with a client at ``host``, and return its request, which has no reply yet.

    With a ``gate``, only its users are accepted. Raises AccessDenied for others, Malformed for bytes that are
    not SOCKS, and OSError and EOFError when the client leaves.
    """
    greeting = await read_message(client.reader, parse_greeting)
    if greeting.version == 4:
        return await _negotiate4(client, gate)
    user = await _authenticate(client, greeting, gate, host)
    return NegotiatedRequest(5, await read_message(client.reader, parse_request5), user)


async def _negotiate4(client: Stream, gate: LoginGate | None) -> NegotiatedRequest:
    asked = NegotiatedRequest(4, await read_message(client.reader, parse_request4))
    if gate is not None:
        await _send(client, asked.reply(Code.NOT_ALLOWED))
        raise AccessDenied("SOCKS 4 has no passwords")
    return asked


async def _authenticate(client: Stream, greeting: Greeting, gate: LoginGate | None, host: str) -> str:
    """Agree on a method, and authenticate the client by it; return the user."""
    method = Method.NONE if gate is None else Method.PASSWORD
    if method not in greeting.methods:
        await _send(client, bytes([5, Method.NO_ACCEPTABLE]))
        raise AccessDenied("it offers no password" if gate is not None else "it requires a login")
    await _send(client, bytes([5, method]))
    if gate is None:
        return ""
    login = await read_message(client.reader, parse_login)
    why = ""
    try:
        if not await gate.verify(login.user, login.password, host):
            why = f"wrong password for {login.user!r}"
    except TooManyFailures as error:
        why = str(error)
    await _send(client, bytes([1, bool(why)]))
    if why:
        raise AccessDenied(why)
    return login.user


async def _send(client: Stream, data: bytes) -> None:
    client.writer.write(data)
    await client.writer.drain()
