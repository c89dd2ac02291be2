"""The operations on a running instance: reload, reopen, upgrade, scale and resign."""

from __future__ import annotations

from tamed.control.instances import ANSWERED, ask_instance, understood
from tamed.ipc.message import read_fault, read_number, read_text, read_texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tamed.control.instances import Waiting
    from tamed.ipc.message import Message
    from tamed.unix.rundir import Instance

__all__ = [
    "Outcome",
    "reload_instance",
    "reopen_instance",
    "resign_role",
    "scale_instance",
    "upgrade_instance",
]


class Outcome:
    """What has become of a request: ``text`` for the operator, and the exit ``status``, 0 if it was done."""

    def __init__(self, text: str, status: int = 0) -> None:
        self.text = text
        self.status = status


def reload_instance(instance: Instance, waiting: Waiting) -> Outcome:
    """Replace the workers of an instance with new ones, from the current files and code; return the outcome.

    Waits without a time limit. If the reload fails, the old workers continue.
    """
    return _request(instance, {"command": "reload"}, waiting, "reloaded")


def reopen_instance(instance: Instance) -> Outcome:
    """Make an instance reopen its log file; return the outcome."""
    return _request(instance, {"command": "reopen"}, None, "reopened", timeout=ANSWERED)


def resign_role(instance: Instance, role: str, waiting: Waiting) -> Outcome:
    """Move a role of an instance to another worker; wait until one holds it, without a limit."""
    return _request(instance, {"command": "resign", "role": role}, waiting, "resigned")


def upgrade_instance(instance: Instance, waiting: Waiting) -> Outcome:
    """Replace the program of an instance's supervisor, and then reload; return the outcome.

    Waits without a time limit. If the upgrade fails, the old program continues.
    """
    outcome = _request(instance, {"command": "upgrade"}, waiting, "reloaded")
    return Outcome(outcome.text.replace("was reloaded", "was upgraded", 1), outcome.status)


def scale_instance(instance: Instance, workers: int, waiting: Waiting, *, yes: bool) -> Outcome:
    """Scale an instance to this number of workers; wait until they are ready.

    ``yes`` confirms a very large number.
    """
    return _request(instance, {"command": "scale", "workers": workers, "yes": yes}, waiting, "scaled")


def _request(
    instance: Instance, request: Message, waiting: Waiting | None, key: str, timeout: float | None = None
) -> Outcome:
    answer = ask_instance(instance, request, timeout, waiting)
    with understood(instance):
        if "fault" in answer:
            lines, status = read_fault(answer)
            return Outcome("\n".join(lines), status)
        warnings = [f"warning: {each}" for each in read_texts(answer, "warnings")]
        if key == "scaled":
            count = read_number(answer, key)
            text = f"{instance.name} has {count} worker{'s' * (count > 1)}"
        else:
            text = read_text(answer, key)
        return Outcome("\n".join([text, *warnings]))
