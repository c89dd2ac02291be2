"""Errors on their way from one process to another."""

from tamed.errors import SystemRefused, TamedError
from tamed.runner._message import Message, read_text

__all__ = ["fault_data", "fault_of"]


def fault_data(error: TamedError) -> dict[str, str]:
    """Return an error as data: what it says, and whose fault it is, which has the status."""
    kind = next(kind for kind in type(error).__mro__ if TamedError in kind.__bases__)
    return {"kind": kind.__name__, "what": error.what, "why": error.why, "remedy": error.remedy}


def fault_of(data: Message) -> TamedError:
    """Return the error that the data was made from, as one of the public kinds."""
    kinds = {kind.__name__: kind for kind in TamedError.__subclasses__()}
    what, why, remedy = (read_text(data, key) for key in ("what", "why", "remedy"))
    return kinds.get(read_text(data, "kind"), SystemRefused)(what, why, remedy)
