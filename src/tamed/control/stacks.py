"""Requests for the stacks of an instance's workers; the answer is validated."""

from typing import Any

from tamed.control.instances import ask_instance, understood
from tamed.ipc.message import Message, read_number, read_objects, read_text, read_texts, read_truth
from tamed.supervisor.reports import read_stacks
from tamed.unix.rundir import Instance

__all__ = ["stacks_of_instance"]

_ANSWERED = 10.0  # seconds


def stacks_of_instance(instance: Instance) -> list[dict[str, Any]]:
    """Request the stacks of the threads and tasks of each worker. Raises as `ask_instance` does."""
    answer = ask_instance(instance, {"command": "stacks"}, _ANSWERED)
    with understood(instance):
        return [_read(each) for each in read_objects(answer, "stacks")]


def _read(message: Message) -> dict[str, Any]:
    return {
        "pid": read_number(message, "pid"),
        "worker": read_number(message, "worker"),
        "generation": read_number(message, "generation"),
        "state": read_text(message, "state"),
        "answered": read_truth(message, "answered"),
        **read_stacks(message),
        "printed": read_texts(message, "printed"),
    }
