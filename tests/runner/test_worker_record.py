"""The supervisor's record of a worker."""

import pytest

from tamed.errors import ExitStatus
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tests.runner.world import a_plan


@pytest.fixture
def worker() -> Worker:
    """A worker that was just started."""
    worker = Worker(1, Generation(1, a_plan(), 2), 0.0)
    worker.begin(7, 0.0)
    return worker


@pytest.mark.parametrize(
    ("state", "is_coming", "must_answer", "is_leaving"),
    [
        (WorkerState.LOADING, True, False, False),
        (WorkerState.PREPARED, True, False, False),
        (WorkerState.STARTING, True, False, False),
        (WorkerState.READY, False, True, False),
        (WorkerState.STOPPING, False, True, True),
        (WorkerState.STUCK, False, False, True),
    ],
)
def test_what_a_state_means(
    worker: Worker, state: WorkerState, is_coming: bool, must_answer: bool, is_leaving: bool
) -> None:
    """Each state determines whether a worker is coming, must answer, or is leaving."""
    worker.state = state
    assert worker.is_coming is is_coming
    assert worker.must_answer is must_answer
    assert worker.is_leaving is is_leaving


def test_its_status_is_what_it_said(worker: Worker) -> None:
    """A fault has precedence over the status that the application chose."""
    assert worker.status == ExitStatus.SOFTWARE
    worker.leaving = 0
    assert worker.status == 0
    worker.fault = ["tamed: no poems"], 66
    assert worker.status == 66
