"""The staff: how many workers the serving generation has, and which of them take the place of others."""

from collections.abc import Callable, Sequence
from typing import Any

from tamed.runner._control import Answer
from tamed.runner._crew import Crew
from tamed.runner._generation import Generation
from tamed.runner._handover import Handovers
from tamed.runner._station import Station
from tamed.runner._worker_record import Worker, WorkerState

__all__ = ["Staff"]


class Staff:
    """Scales and recycles.

    ``serving`` is asked for the generation, and ``hire`` starts a worker of it, by its number, which may be
    to take the place of another.
    """

    def __init__(
        self,
        crew: Crew,
        handovers: Handovers,
        station: Station,
        *,
        serving: Callable[[], Generation],
        hire: Callable[[int, Worker | None], bool],
    ) -> None:
        self._crew = crew
        self._handovers = handovers
        self._station = station
        self._serving = serving
        self._hire = hire
        self._answers: list[Answer] = []

    def scale(self, count: int, answers: Sequence[Answer]) -> None:
        """Have so many workers from now on. The answers are called when so many are ready."""
        self._station.say("INFO", f"{count} worker{'s' * (count > 1)} from now on")
        self._serving().count = count
        self._answers += answers
        staying = {worker.number: worker for worker in self._staying()}
        self._handovers.begin([worker for number, worker in staying.items() if number > count], ())
        for number in set(range(1, count + 1)) - staying.keys():
            self._hire(number, None)
        self._look()

    def recycle(self, worker: Worker, why: str) -> bool:
        """Replace a worker without a loss: another one is ready before it goes. Tell whether that begins."""
        is_going = any(each.replaces is worker for each in self._crew.workers.values())
        if is_going or worker not in self._staying():
            return False
        self._station.say("INFO", f"worker {worker.pid} {why}: another one takes its place")
        return self._hire(worker.number, worker)

    def came(self, worker: Worker) -> None:
        """Let a worker serve that has become ready, in the place of another if it was hired for that."""
        old = worker.replaces
        self._handovers.begin([] if old is None else [old], [worker])
        self._look()

    def left(self, worker: Worker) -> None:
        """Hear that a worker has ended: who was to take its place has it."""
        for each in self._crew.workers.values():
            if each.replaces is worker:
                each.replaces = None

    def holder(self, number: int) -> Worker | None:
        """Return the worker of this number, which may be on its way, or None."""
        return next((worker for worker in self._staying() if worker.number == number), None)

    def answer(self, outcome: dict[str, Any]) -> None:
        """Tell those who wait for a number of workers what has come of it."""
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(outcome)

    def _staying(self) -> list[Worker]:
        """Return the workers of this generation that are not about to be replaced or to leave."""
        return [
            each
            for each in self._crew.of(self._serving())
            if not each.is_retired and (each.replaces is None or each.state is WorkerState.READY)
        ]

    def _look(self) -> None:
        ready = [worker for worker in self._staying() if worker.state is WorkerState.READY]
        if len(ready) == self._serving().count:
            self.answer({"scaled": len(ready)})
