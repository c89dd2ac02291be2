"""The client of a supervisor's control socket: one request, and one answer, which is not trusted.

See `tamed.supervisor.control` for the server.
"""

from __future__ import annotations

import socket
import time

from tamed._os.unix_sockets import connect_unix, peer_credentials
from tamed.errors import PermissionRefused, SystemRefused, from_os_error
from tamed.ipc.message import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    InvalidMessage,
    Message,
    encode_message,
    parse_message,
    read_number,
    read_objects,
    read_seconds,
    read_text,
    read_texts,
    read_truth,
)
from tamed.supervisor.reports import read_report, read_stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

__all__ = ["answer_from", "ask", "read_answered_stacks", "read_events", "read_status"]

_MOST = 2**53  # the largest integer that every reader of JSON can represent


def ask(
    path: Path,
    request: Message,
    timeout: float | None = 10.0,
    waiting: Callable[[str], object] | None = None,
    *,
    holder: int | None = None,
) -> Message:
    """Send a request to a supervisor's control socket and return its answer.

    ``waiting`` is called with each operation for which the request waits. ``holder`` is the pid of the
    process that must listen on the socket; it is compared with the pid that the kernel reports.

    Raises MissingInput if there is no socket, PermissionRefused if it belongs to another user or process, and
    SystemRefused if there is no valid answer within ``timeout`` seconds (None: no limit).
    """
    what = f"cannot ask {path}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        try:
            connect_unix(sock, path)
            if holder is not None and (listener := peer_credentials(sock).pid) != holder:
                raise PermissionRefused(what, f"process {listener} listens there, and {holder} is the daemon")
            progress = {} if waiting is None else {"progress": True}
            sock.sendall(encode_message(request | progress, LONGEST_REQUEST))
            answer = answer_from(sock, timeout, waiting)
        except TimeoutError as error:
            raise SystemRefused(what, f"no answer within {timeout:g} seconds") from error
        except OSError as error:
            raise from_os_error(what, error) from error
        except InvalidMessage as invalid:
            raise SystemRefused(what, f"invalid answer: {invalid}") from invalid
    if answer is None:
        raise SystemRefused(what, "the supervisor closed the connection without an answer")
    if "error" in answer:
        raise SystemRefused(what, answer["error"])
    return answer


def answer_from(
    sock: socket.socket, timeout: float | None, waiting: Callable[[str], object] | None
) -> Message | None:
    """Read up to the answer, and return it; None if there is none. The size of all data is bounded.

    Raises InvalidMessage for an invalid answer.
    """
    for line in _lines_from(sock, None if timeout is None else time.monotonic() + timeout):
        answer = parse_message(line, LONGEST_ANSWER)
        if "error" in answer:
            read_text(answer, "error")
        if waiting is None or "waiting" not in answer:
            return answer
        waiting(read_text(answer, "waiting"))
    return None


def _lines_from(sock: socket.socket, deadline: float | None) -> Iterator[bytes]:
    count = 0
    chunks: list[bytes] = []
    while count <= LONGEST_ANSWER:
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        if not (chunk := sock.recv(LONGEST_REQUEST)):
            return
        count += len(chunk)
        chunks.append(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join(chunks).split(b"\n")
            chunks = [rest]
            yield from lines
    raise InvalidMessage(f"longer than {LONGEST_ANSWER} bytes")


def read_status(message: Message) -> Message:
    """Return the known fields of a status. Raises InvalidMessage for an invalid one."""
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
        "certificates": [
            {
                "endpoint": read_text(each, "endpoint"),
                "file": read_text(each, "file"),
                "ends": _optional(each, "ends", read_text),
            }
            for each in read_objects(
                {"certificates": [], **message}, "certificates"
            )  # older supervisors send none
        ],
        "ready": read_number(message, "ready"),
        "wanted": read_number(message, "wanted"),
        "restarts": read_number(message, "restarts"),
        "checks": _read_summaries(message.get("checks", [])),
        "last_error": read_text(message, "last_error"),
        "last_error_at": _optional(message, "last_error_at", read_text),
        "roles": [_read_role(each) for each in read_objects({"roles": [], **message}, "roles")],
        "log": read_text(message, "log"),
        "events_file": read_text(
            {"events_file": "", **message}, "events_file"
        ),  # older supervisors send none
        "events": read_events(message.get("events", [])),
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


def _read_summaries(checks: object) -> list[Message]:
    """Return the checks of a status. Raises InvalidMessage for anything else."""
    return [
        {
            "name": read_text(each, "name"),
            "gates": read_truth(each, "gates"),
            "asked": read_number(each, "asked"),
            "failing": read_number(each, "failing"),
            "why": read_text(each, "why"),
        }
        for each in read_objects({"checks": checks}, "checks")
    ]


def _read_role(message: Message) -> Message:
    return {
        "role": read_text(message, "role"),
        "scope": read_text(message, "scope"),
        "state": read_text(message, "state"),
        "worker": _optional(message, "worker", read_number),
        "pid": _optional(message, "pid", read_number),
        "generation": _optional(message, "generation", read_number),
        "age": read_seconds(message, "age"),
        "token": read_number(message, "token", most=2**63 - 1),
        "transitions": read_number(message, "transitions"),
        "vacant": read_seconds(message, "vacant"),
        "standby": read_number(message, "standby"),
        "holder": read_text({"holder": "", **message}, "holder"),  # older supervisors send none
        "trouble": read_text({"trouble": "", **message}, "trouble"),
    }


def read_answered_stacks(message: Message) -> Message:
    """Return the stacks of one worker in an answer. Raises InvalidMessage for anything else."""
    return {
        "pid": read_number(message, "pid"),
        "worker": read_number(message, "worker"),
        "generation": read_number(message, "generation"),
        "state": read_text(message, "state"),
        "answered": read_truth(message, "answered"),
        **read_stacks(message),
        "printed": read_texts(message, "printed"),
    }


def read_events(events: object) -> list[Message]:
    """Return the events of a status. Raises InvalidMessage for anything else."""
    if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
        raise InvalidMessage("events: expected a list of objects")
    for event in events:
        for key in ("time", "event", "text"):
            read_text(event, key)
    return events


def _optional(message: Message, key: str, read: Callable[[Message, str], Any]) -> Any:
    return None if message.get(key) is None else read(message, key)
