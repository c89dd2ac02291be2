"""A minute of the proof that `make test-cluster` is."""

from pathlib import Path

import pytest

from tests.fleet.__main__ import run
from tests.fleet.hosts import can_run


@pytest.mark.long
@pytest.mark.unmeasured
@pytest.mark.skipif(bool(can_run("etcd")), reason=can_run("etcd") or "it can run")
def test_nobody_acts_with_an_old_token(tmp_path: Path) -> None:
    """Whatever fails in a fleet, no action carries an older token than one before, and it goes on."""
    referee = run(tmp_path, "etcd", 60.0, seed=7)
    assert referee.stale == []
    assert len(referee.tokens) > 1
