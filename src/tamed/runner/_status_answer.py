"""How an instance stands, as the command reads it from the answer of a supervisor (see ``_status``).

The one who answers may be another user's process, and say anything. So each field is read by a function that
knows its type, and what is not known is left out: whoever shows it need not look again.
"""

from collections.abc import Callable
from typing import Any

from tamed.runner._message import (
    InvalidMessage,
    Message,
    read_number,
    read_seconds,
    read_text,
    read_texts,
    read_truth,
)
from tamed.runner._worker_report import read_report

__all__ = ["read_status"]

_MOST = 2**53  # what every reader of JSON can hold


def read_status(message: Message) -> Message:
    """Return what is known of a status. Raises InvalidMessage for what is none."""
    workers = message.get("workers")
    if not isinstance(workers, list) or not all(isinstance(each, dict) for each in workers):
        raise InvalidMessage("workers: expected a list of objects")
    return {
        "name": read_text(message, "name"),
        "state": read_text(message, "state"),
        "pid": read_number(message, "pid"),
        "uptime": read_seconds(message, "uptime"),
        "generation": read_number(message, "generation"),
        "reloading": read_truth(message, "reloading"),
        "endpoints": read_texts(message, "endpoints"),
        "ready": read_number(message, "ready"),
        "wanted": read_number(message, "wanted"),
        "restarts": read_number(message, "restarts"),
        "last_error": read_text(message, "last_error"),
        "last_error_at": _optional(message, "last_error_at", read_text),
        "log": read_text(message, "log"),
        "workers": [_read_worker(each) for each in workers],
        "warnings": read_texts(message, "warnings"),
    }


def _read_worker(message: Message) -> Message:
    return {
        "pid": read_number(message, "pid"),
        "number": read_number(message, "number"),
        "generation": read_number(message, "generation"),
        "state": read_text(message, "state"),
        "uptime": read_seconds(message, "uptime"),
        "memory": _optional(message, "memory", lambda message, key: read_number(message, key, most=_MOST)),
        "cpu": _optional(message, "cpu", read_seconds),
        **read_report(message),
    }


def _optional(message: Message, key: str, read: Callable[[Message, str], Any]) -> Any:
    return None if message.get(key) is None else read(message, key)
