"""The conversation up to a client's request: which version, who it is, what it wants."""

import asyncio
from dataclasses import dataclass
from typing import Final

from tamed.builtin._framing import read_message
from tamed.builtin._passwords import PasswordFile
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

_GUESS_DELAY: Final = 1.0
"""Seconds that a client waits to hear that its password is wrong."""


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


async def negotiate(client: Stream, users: PasswordFile | None) -> Asked:
    """Hold the conversation and return what the client asked for; it has no answer yet.

    With ``users``, only those are let in. Raises NotLetIn for others, Malformed for what is no SOCKS, and
    OSError and EOFError when the client leaves.
    """
    greeting = await read_message(client.reader, parse_greeting)
    if greeting.version == 4:
        return await _negotiate4(client, users)
    user = await _login(client, greeting, users)
    return Asked(5, await read_message(client.reader, parse_request5), user)


async def _negotiate4(client: Stream, users: PasswordFile | None) -> Asked:
    asked = Asked(4, await read_message(client.reader, parse_request4))
    if users is not None:
        await _send(client, asked.answer(Code.NOT_ALLOWED))
        raise NotLetIn("SOCKS 4 has no passwords")
    return asked


async def _login(client: Stream, greeting: Greeting, users: PasswordFile | None) -> str:
    """Agree on how the client says who it is, and let it do so; return the user."""
    method = Method.NONE if users is None else Method.PASSWORD
    if method not in greeting.methods:
        await _send(client, bytes([5, Method.NO_ACCEPTABLE]))
        raise NotLetIn("it offers no password" if users is not None else "it insists on logging in")
    await _send(client, bytes([5, method]))
    if users is None:
        return ""
    login = await read_message(client.reader, parse_login)
    fits = await users.verify(login.user, login.password)
    if not fits:
        await asyncio.sleep(_GUESS_DELAY)
    await _send(client, bytes([1, not fits]))
    if not fits:
        raise NotLetIn(f"wrong password for {login.user!r}")
    return login.user


async def _send(client: Stream, data: bytes) -> None:
    client.writer.write(data)
    await client.writer.drain()
