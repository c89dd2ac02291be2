"""The client of a supervisor's control socket: one request, and one answer, which is not trusted.

See `tamed.supervisor.control` for the server.
"""

from __future__ import annotations

import socket
import time
from functools import partial

from tamed._os.unix_sockets import connect_unix, peer_credentials
from tamed.errors import PermissionRefused, SystemRefused, from_os_error
from tamed.ipc.message import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    InvalidMessage,
    Message,
    absent_as,
    encode_message,
    list_of,
    optional,
    parse_message,
    read_fields,
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
    from typing import Final

    from tamed.ipc.message import Reader

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
    return read_fields(
        message,
        name=read_text,
        state=read_text,
        pid=read_number,
        uptime=read_seconds,
        generation=read_number,
        reloading=read_truth,
        endpoints=read_texts,
        certificates=absent_as([], list_of(endpoint=read_text, file=read_text, ends=optional(read_text))),
        ready=read_number,
        wanted=read_number,
        restarts=read_number,
        checks=absent_as([], _CHECKS),
        last_error=read_text,
        last_error_at=optional(read_text),
        roles=absent_as([], _ROLES),
        log=read_text,
        events_file=absent_as("", read_text),
        events=absent_as([], read_events),
        workers=_read_workers,
        warnings=read_texts,
    )


_CHECKS: Final = list_of(
    name=read_text, gates=read_truth, asked=read_number, failing=read_number, why=read_text
)
_ROLES: Final = list_of(
    role=read_text,
    scope=read_text,
    state=read_text,
    worker=optional(read_number),
    pid=optional(read_number),
    generation=optional(read_number),
    age=read_seconds,
    token=partial(read_number, most=2**63 - 1),
    transitions=read_number,
    vacant=read_seconds,
    standby=read_number,
    holder=absent_as("", read_text),
    trouble=absent_as("", read_text),
)
_WORKER: Final[dict[str, Reader]] = {
    "pid": read_number,
    "number": read_number,
    "generation": read_number,
    "state": read_text,
    "uptime": read_seconds,
    "memory": optional(partial(read_number, most=_MOST)),
    "cpu": optional(read_seconds),
}


def _read_workers(message: Message, key: str) -> list[Message]:
    return [{**read_fields(each, **_WORKER), **read_report(each)} for each in read_objects(message, key)]


def read_answered_stacks(message: Message) -> Message:
    """Return the stacks of one worker in an answer. Raises InvalidMessage for anything else."""
    origin = read_fields(
        message,
        pid=read_number,
        worker=read_number,
        generation=read_number,
        state=read_text,
        answered=read_truth,
    )
    return {**origin, **read_stacks(message), "printed": read_texts(message, "printed")}


def read_events(message: Message, key: str) -> list[Message]:
    """Return the events at a key, whole. Raises InvalidMessage for anything else."""
    events = read_objects(message, key)
    for event in events:
        read_fields(event, time=read_text, event=read_text, text=read_text)
    return events
