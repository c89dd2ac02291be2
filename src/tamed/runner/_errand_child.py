"""The child's side of a channel: one order comes in, and of an errand one answer goes out."""

import os
import select
import socket
import sys
from collections.abc import Callable

from tamed._fork import guard_forks
from tamed.errors import TamedError
from tamed.runner._channel import Channel
from tamed.runner._explain import fault_message
from tamed.runner._message import InvalidMessage, Message
from tamed.runner._spawn import CHANNEL, RECORDS

__all__ = ["answer_errand", "first_order"]


def answer_errand(answer: Callable[[Message], Message]) -> None:
    """Take the order and send what is made of it; a TamedError is sent as the fault that it is."""
    guard_forks()  # it reads the application's files, which may be programs
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    channel = Channel(socket.socket(fileno=CHANNEL))
    order = first_order(channel)
    try:
        told = answer(order)
    except TamedError as error:
        told = fault_message(error)
    channel.send(told)
    while not channel.flush():
        select.select([], [channel], [])


def first_order(channel: Channel) -> Message:
    """Wait for the supervisor's first word; without one this process ends."""
    try:
        while not channel.closed:
            select.select([channel], [], [])
            for message, _ in channel.receive():
                return message
    except InvalidMessage as error:
        sys.exit(f"the supervisor cannot be understood: {error}")
    sys.exit("the supervisor is gone")
