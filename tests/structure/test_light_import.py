"""What ``import tamed`` loads: little, so that a process that needs little stays small."""

import sys

import pytest

from tests.fresh import loaded_by


def test_importing_tamed_loads_nothing_but_itself() -> None:
    """``import tamed`` loads no layer, no asyncio and nothing of anybody else's."""
    loaded = loaded_by("import tamed")
    assert {name for name in loaded if name.startswith("tamed.")} <= {"tamed._version"}
    assert "asyncio" not in loaded
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"tamed"}


@pytest.mark.parametrize("name", ["Application", "Service", "StreamServer", "option", "plugin"])
def test_taking_a_name_loads_neither_command_nor_builtin(name: str) -> None:
    """What an application file takes from ``tamed`` brings neither the command nor our own services."""
    loaded = loaded_by(f"from tamed import {name}")
    folders = {"cli", "builtin", "config", "worker", "supervisor", "control"}
    assert not loaded & {f"tamed.{folder}" for folder in folders}
    assert "uvloop" not in loaded
