"""The pytest plugin: fixtures that start services and ``tamed`` processes, and end them.

pytest loads it by its entry point in every test run of an environment with Tamed, so it imports no module of
Tamed before a test uses a fixture.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from tamed.service.service import Service
    from tamed.testing.process import StartProcess
    from tamed.testing.running import Served, StartService

__all__ = ["tamed_process", "tamed_service"]

S = TypeVar("S", bound="Service")


@pytest.fixture
def tamed_service() -> "Iterator[StartService]":
    """Return a function that starts a service on free ports, in a thread; it is stopped after the test.

    It has the parameters of `tamed.testing.running.serving`, and returns a `tamed.testing.running.Served`.
    """
    from tamed.testing.running import serving

    with ExitStack() as stack:

        def start(service: S, *, drain_timeout: float = 5.0) -> "Served[S]":
            return stack.enter_context(serving(service, drain_timeout=drain_timeout))

        yield start


@pytest.fixture
def tamed_process(tmp_path: Path) -> "Iterator[StartProcess]":
    """Return a function that starts a ``tamed`` process in ``tmp_path``; it is ended after the test.

    It takes the words of the command line and returns a `tamed.testing.process.TamedProcess`. The run
    directory is in ``tmp_path`` too, and daemons that were started there are stopped as well.
    """
    from tamed.testing.process import TamedProcess, end_instances

    run_directory = tmp_path / "run"

    with ExitStack() as stack:
        stack.callback(end_instances, run_directory)

        def start(*words: str | Path, env: Mapping[str, str] | None = None) -> "TamedProcess":
            places = {"TAMED_RUNDIR": str(run_directory), "LOGS_DIRECTORY": str(tmp_path / "logs")}
            ours = {**places, **(env or {})}
            return stack.enter_context(TamedProcess(*words, cwd=tmp_path, env=ours))

        yield start
