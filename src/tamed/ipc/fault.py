"""Errors as data for other processes, and as text for people."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tamed._os.secrets import SECRETS
from tamed._os.text import shown
from tamed.errors import ApplicationFailed, ServiceFailed, SystemRefused, TamedError, status_of
from tamed.ipc.message import Message, read_text

if TYPE_CHECKING:
    import traceback

__all__ = ["errno_of", "explain", "fault_data", "fault_message", "fault_of"]

_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_LIBRARY = f"{Path(os.__file__).parent}{os.sep}"


def explain(error: TamedError) -> Iterator[str]:
    """Yield the texts to print for an error and those found with it.

    For each it is the application's traceback if it raised, then one line.
    """
    for each in (error, *error.others):
        yield from _explained(each)


def _explained(error: TamedError) -> Iterator[str]:
    cause = _raised_by_the_application(error)
    if cause is not None:
        yield shown(SECRETS.hidden(_users_traceback(cause)))
    yield f"tamed: {shown(SECRETS.hidden(str(error)))}"


def fault_message(error: TamedError) -> dict[str, object]:
    """Return an error as a message with its text, its exit status and its errno, for `read_fault`."""
    status, number = status_of(error) & 0xFF, errno_of(error)
    return {"fault": {"lines": list(explain(error)), "status": status, "errno": number}}


def errno_of(error: TamedError) -> int:
    """Return the errno (errno(3)) of the operating system's error that caused this one; 0 if none did."""
    cause: BaseException = error.cause if isinstance(error, ServiceFailed) else error
    while isinstance(cause, TamedError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause.errno or 0 if isinstance(cause, OSError) else 0


def fault_data(error: TamedError) -> dict[str, str]:
    """Return an error as data: its fields, and its public kind, which has the status."""
    kind = next(kind for kind in type(error).__mro__ if TamedError in kind.__bases__)
    return {"kind": kind.__name__, "what": error.what, "why": error.why, "remedy": error.remedy}


def fault_of(data: Message) -> TamedError:
    """Return the error that the data was made from, as its public kind."""
    kinds = {kind.__name__: kind for kind in TamedError.__subclasses__()}
    what, why, remedy = (read_text(data, key) for key in ("what", "why", "remedy"))
    return kinds.get(read_text(data, "kind"), SystemRefused)(what, why, remedy)


def _raised_by_the_application(error: TamedError) -> BaseException | None:
    """Return the exception to show a traceback for: an unexpected one that was not logged."""
    if isinstance(error, ServiceFailed):
        is_logged = error.phase not in ("prepare", "start")
        cause = error.cause.__cause__ if isinstance(error.cause, ApplicationFailed) else error.cause
        is_expected = isinstance(cause, (TamedError, OSError, SystemExit))
        return None if is_logged or is_expected else cause
    return error.__cause__ if isinstance(error, ApplicationFailed) else None


def _users_traceback(error: BaseException) -> str:
    import traceback  # lazy import: a supervisor that meets no fault does not need it

    summary = traceback.TracebackException.from_exception(error)
    _shorten(summary)
    return "".join(summary.format()).rstrip()


def _shorten(summary: "traceback.TracebackException") -> None:
    """Remove the frames that are not the user's, also of causes, contexts and exceptions in a group.

    These are frames of Tamed, of the interpreter and of the standard library. If there are no others, all
    frames are kept, except for a syntax error, whose text contains its place.
    """
    users = [frame for frame in summary.stack if _is_users(frame.filename)]
    if users or not _is_users(getattr(summary, "filename", None) or "<"):
        summary.stack[:] = users or summary.stack
    else:
        summary.stack.clear()
    for other in (summary.__cause__, summary.__context__, *(summary.exceptions or ())):
        if other is not None:
            _shorten(other)


def _is_users(file: str) -> bool:
    if file.startswith((_OURS, "<")):
        return False
    return "site-packages" in file or not file.startswith(_LIBRARY)
