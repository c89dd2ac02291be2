"""What an administrator can ask of a supervisor: the requests of the control socket."""

from tamed.runner._control import Answer, Reply
from tamed.runner._message import Message, read_number, read_text
from tamed.runner._status import StatusDesk
from tamed.runner._supervisor import Supervisor

__all__ = ["Desk"]

_SHOWN = 60  # characters


class Desk:
    """Serves requests. Each is answered once, with what came of it."""

    def __init__(self, supervisor: Supervisor, status: StatusDesk) -> None:
        self._supervisor = supervisor
        self._status = status

    def serve(self, request: Message, answer: Answer) -> None:
        """Answer a request, now or later; whoever waits for its turn is told for what, if it wants to know.

        Raises InvalidMessage for what is none.
        """
        waits_for = None
        match read_text(request, "command"):
            case "status":
                self._status.serve(answer)
            case "reopen":
                answer(self._supervisor.reopen())
            case "reload":
                waits_for = self._supervisor.reload([answer])
            case "upgrade":
                waits_for = self._supervisor.upgrade([answer])
            case "scale":
                count = read_number(request, "workers", -(2**31))
                waits_for = self._supervisor.scale(count, [answer], yes=request.get("yes") is True)
            case other:
                answer({"error": f"unknown command {other[:_SHOWN]!r}"})
        if waits_for is not None and request.get("progress") is True and isinstance(answer, Reply):
            answer.progress(waits_for)
