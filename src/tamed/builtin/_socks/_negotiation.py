"""The conversation up to a client's request: which version, who it is, what it wants."""

from dataclasses import dataclass

from tamed.builtin._framing import read_message
from tamed.builtin._login import LoginGate, TooManyFailures
from tamed.builtin._relay import Stream
from tamed.builtin._socks._messages import (
    Code,
    Greeting,
    Method,
    Request,
    encode_reply4,
    encode_reply5,
    parse_greeting,
    parse_login,
    parse_request4,
    parse_request5,
)

__all__ = ["Asked", "NotLetIn", "negotiate"]


class NotLetIn(Exception):
    """A client that has not shown who it is. The text says why; it was told."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for, in which version, and as whom (empty: nobody in particular)."""

    version: int
    request: Request
    user: str = ""

    def answer(self, code: Code, host: str = "0.0.0.0", port: int = 0) -> bytes:  # noqa: S104 - "no address"
        """Return the answer's bytes; the address is the one that is used for the client."""
        return encode_reply4(code) if self.version == 4 else encode_reply5(code, host, port)


async def negotiate(client: Stream, gate: LoginGate | None, host: str) -> Asked:
    """Hold the conversation and return what the client, at ``host``, asked for; it has no answer yet.

    With a ``gate``, only its users are let in. Raises NotLetIn for others, Malformed for what is no SOCKS,
    and OSError and EOFError when the client leaves.
    """
    greeting = await read_message(client.reader, parse_greeting)
    if greeting.version == 4:
        return await _negotiate4(client, gate)
    user = await _login(client, greeting, gate, host)
    return Asked(5, await read_message(client.reader, parse_request5), user)


async def _negotiate4(client: Stream, gate: LoginGate | None) -> Asked:
    asked = Asked(4, await read_message(client.reader, parse_request4))
    if gate is not None:
        await _send(client, asked.answer(Code.NOT_ALLOWED))
        raise NotLetIn("SOCKS 4 has no passwords")
    return asked


async def _login(client: Stream, greeting: Greeting, gate: LoginGate | None, host: str) -> str:
    """Agree on how the client says who it is, and let it do so; return the user."""
    method = Method.NONE if gate is None else Method.PASSWORD
    if method not in greeting.methods:
        await _send(client, bytes([5, Method.NO_ACCEPTABLE]))
        raise NotLetIn("it offers no password" if gate is not None else "it insists on logging in")
    await _send(client, bytes([5, method]))
    if gate is None:
        return ""
    login = await read_message(client.reader, parse_login)
    try:
        why = (
            ""
            if await gate.verify(login.user, login.password, host)
            else f"wrong password for {login.user!r}"
        )
    except TooManyFailures as error:
        why = str(error)
    await _send(client, bytes([1, bool(why)]))
    if why:
        raise NotLetIn(why)
    return login.user


async def _send(client: Stream, data: bytes) -> None:
    client.writer.write(data)
    await client.writer.drain()
