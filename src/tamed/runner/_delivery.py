"""Delivering what waits in a channel, as fast as the other end reads."""

from collections.abc import Callable

from tamed.runner._channel import Channel
from tamed.runner._reactor import Reactor

__all__ = ["deliver"]


def deliver(channel: Channel, reactor: Reactor, lost: Callable[[], object]) -> None:
    """Send what waits in a channel that the reactor watches; what there is no room for yet goes later.

    ``lost`` is called if the other end takes no more.
    """
    try:
        if not channel.closed and not channel.flush():
            reactor.once_writable(channel, lambda: deliver(channel, reactor, lost))
    except OSError:
        lost()
