"""A minute of the proof that `make test-cluster` is."""

from pathlib import Path

import pytest

from tests.fleet.__main__ import run
from tests.fleet.engines import ENGINES
from tests.fleet.hosts import can_run


@pytest.mark.long
@pytest.mark.unmeasured
@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_acts_with_an_old_token(tmp_path: Path, engine: str) -> None:
    """Whatever fails in a fleet, no action carries an older token than one before, and it goes on."""
    if why := can_run(engine):
        pytest.skip(why)
    referee = run(tmp_path, engine, 60.0, seed=7)
    assert referee.stale == []
    assert len(referee.tokens) > 1
