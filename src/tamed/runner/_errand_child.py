"""The child's side of an errand: one order comes in, one answer goes out."""

import os
import select
import socket
import sys
from collections.abc import Callable

from tamed.errors import TamedError, status_of
from tamed.runner._channel import Channel, Message
from tamed.runner._explain import explain
from tamed.runner._spawn import CHANNEL, RECORDS

__all__ = ["answer_errand"]


def answer_errand(answer: Callable[[Message], Message]) -> None:
    """Take the order and send what is made of it; a TamedError is sent as the fault that it is."""
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=CHANNEL))
    order = _order(channel)
    try:
        told = answer(order)
    except TamedError as error:
        told = {"fault": {"lines": list(explain(error)), "status": status_of(error)}}
    channel.send(told)
    while not channel.flush():
        select.select([], [channel], [])


def _order(channel: Channel) -> Message:
    while not channel.closed:
        select.select([channel], [], [])
        for message, _ in channel.receive():
            return message
    sys.exit("the supervisor is gone")
