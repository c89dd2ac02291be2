"""What an error looks like to the person who gets it."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from tamed._text import shown
from tamed.errors import ApplicationFailed, ServiceFailed, TamedError, status_of

__all__ = ["explain", "fault_message"]

_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_LIBRARY = f"{Path(traceback.__file__).parent}{os.sep}"


def explain(error: TamedError) -> Iterator[str]:
    """Yield what to print for an error: one line, after the application's own traceback if it raised."""
    cause = _raised_by_the_application(error)
    if cause is not None:
        yield shown(_users_traceback(cause))
    yield f"tamed: {shown(str(error))}"


def fault_message(error: TamedError) -> dict[str, object]:
    """Return the message by which another process is told of an error: see `read_fault`."""
    return {"fault": {"lines": list(explain(error)), "status": status_of(error) & 0xFF}}


def _raised_by_the_application(error: TamedError) -> BaseException | None:
    """Return the exception whose traceback helps: it was not expected, and no log has told it."""
    if isinstance(error, ServiceFailed):
        told = error.phase not in ("prepare", "start") or isinstance(
            error.cause, (TamedError, OSError, SystemExit)
        )
        return None if told else error.cause
    return error.__cause__ if isinstance(error, ApplicationFailed) else None


def _users_traceback(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error)
    _shorten(told)
    return "".join(told.format()).rstrip()


def _shorten(told: traceback.TracebackException) -> None:
    """Leave out the frames that are not the user's, also of the exceptions behind this one and inside of it.

    Those are ours, the interpreter's and the standard library's. If no other is left, the mistake is not the
    user's, and all are needed, unless it is one of syntax: that says itself where it is.
    """
    users = [frame for frame in told.stack if _is_users(frame.filename)]
    if users or not _is_users(getattr(told, "filename", None) or "<"):
        told.stack[:] = users or told.stack
    else:
        told.stack.clear()
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _shorten(other)


def _is_users(file: str) -> bool:
    if file.startswith((_OURS, "<")):
        return False
    return "site-packages" in file or not file.startswith(_LIBRARY)
