"""What the fixtures of the pytest plugin give, for the annotations of tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from tamed.service.service import Service
from tamed.testing._process import TamedProcess
from tamed.testing._serving import Served

__all__ = ["StartProcess", "StartService"]

S = TypeVar("S", bound=Service)


class StartService(Protocol):
    """What the fixture ``tamed_service`` is: starts a service, which is stopped after the test."""

    def __call__(self, service: S, *, drain_timeout: float = 5.0) -> Served[S]:
        """Start a service on free ports, and return it when it is ready; see `serving`."""
        ...


class StartProcess(Protocol):
    """What the fixture ``tamed_process`` is: starts a ``tamed`` process, which is ended after the test."""

    def __call__(self, *words: str | Path, env: Mapping[str, str] | None = None) -> TamedProcess:
        """Start the command with these words, in the test's ``tmp_path``; see `TamedProcess`."""
        ...
