import asyncio
import sys

import pytest

from tamed.errors import ConfigurationError
from tamed.worker.life import loop_factory


def test_a_loop_is_made_by_its_name() -> None:
    """``auto`` is uvloop where it is installed."""
    uvloop = pytest.importorskip("uvloop")
    assert loop_factory("asyncio") is asyncio.new_event_loop
    assert loop_factory("uvloop") is uvloop.new_event_loop
    assert loop_factory("auto") is uvloop.new_event_loop


def test_where_uvloop_is_missing_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it was asked for; else asyncio's own loop is taken."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory("auto") is asyncio.new_event_loop
    with pytest.raises(
        ConfigurationError, match=r"event loop uvloop: .*; pip install uvloop, or choose another"
    ):
        loop_factory("uvloop")
