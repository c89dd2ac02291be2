"""What an administrator can ask of a supervisor: the requests of the control socket."""

from typing import Any

from tamed.runner._control import Answer
from tamed.runner._status import StatusDesk
from tamed.runner._supervisor import Supervisor

__all__ = ["Desk"]


class Desk:
    """Serves requests. Each is answered once, with what came of it."""

    def __init__(self, supervisor: Supervisor, status: StatusDesk) -> None:
        self._supervisor = supervisor
        self._status = status

    def serve(self, request: dict[str, Any], answer: Answer) -> None:
        """Answer a request, now or later."""
        match request:
            case {"command": "status"}:
                self._status.serve(answer)
            case {"command": "reload"}:
                self._supervisor.reload([answer])
            case {"command": "upgrade"}:
                self._supervisor.upgrade([answer])
            case {"command": "scale", "workers": int(count)}:
                self._supervisor.scale(count, [answer])
            case _:
                answer({"error": f"unknown command {request.get('command')!r}"})
