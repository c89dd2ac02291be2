"""Reaching a target: its name is looked up once, and what is connected to is what was judged."""

import errno
import socket
from typing import Final

from tamed.builtin._dial import Address, connect, look_up, within
from tamed.builtin._socks._messages import Code, Target
from tamed.builtin._socks._rules import TargetRules
from tamed.errors import reason

__all__ = ["Unreached", "allowed_addresses", "reach"]

_MOST_ADDRESSES: Final = 4
"""How many addresses of a name are tried."""

_CODES: Final[dict[int | None, Code]] = {
    errno.ECONNREFUSED: Code.REFUSED,
    errno.ENETUNREACH: Code.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Code.HOST_UNREACHABLE,
    errno.EAFNOSUPPORT: Code.ADDRESS_NOT_SUPPORTED,
}


class Unreached(Exception):
    """A target that may not or cannot be reached: what the client is told, and why for the log."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


async def reach(target: Target, rules: TargetRules, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """Return a socket that is connected to an allowed address of a target, or raise Unreached.

    The ``timeout`` is seconds for the name, and for each of its addresses.
    """
    failure = Unreached(Code.HOST_UNREACHABLE, "it has no address")
    for address in (await allowed_addresses(target, rules, timeout))[:_MOST_ADDRESSES]:
        try:
            async with within(timeout):
                return await connect(address)
        except OSError as error:
            failure = Unreached(_CODES.get(error.errno, Code.FAILURE), reason(error))
    raise failure


async def allowed_addresses(
    target: Target,
    rules: TargetRules,
    timeout: float,  # noqa: ASYNC109
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> list[Address]:
    """Look a target up and return those of its addresses that the rules allow: one at least.

    Raises Unreached, by the rules before the name is looked up if they say enough.
    """
    if why := rules.refusal_of_name(target.host, target.port):
        raise Unreached(Code.NOT_ALLOWED, why)
    try:
        async with within(timeout):
            found = await look_up(target.host, target.port, kind)
    except OSError as error:
        raise Unreached(Code.HOST_UNREACHABLE, f"its name is not known: {reason(error)}") from None
    refusals = {address: rules.refusal(target.host, address.host, target.port) for address in found}
    allowed = [address for address, why in refusals.items() if not why]
    if not allowed:
        raise Unreached(Code.NOT_ALLOWED, next(iter(refusals.values()), "it has no address"))
    return allowed
