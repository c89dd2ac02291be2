"""The template that a process of the command makes before it becomes the supervisor."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed.control.first_template import with_template
from tamed.supervisor.plan import Plan
from tamed.supervisor.spawner import FirstTemplate
from tests.supervised.daemon import is_there

TEXT_OF_A_MEGABYTE = "x" * 1024 * 1024


def plan_in(folder: Path) -> Plan:
    """Return a plan for workers with this interpreter in this folder."""
    interpreter = [sys.executable, "-P"]
    return Plan("poetry", {}, interpreter, directory=str(folder), worker_interpreter=interpreter)


def opened() -> set[int]:
    """Return the descriptors of this process."""
    return {int(each.name) for each in Path("/proc/self/fd").iterdir() if each.exists()}


def test_it_is_a_child_whose_descriptors_pass_an_exec(tmp_path: Path) -> None:
    """The plan names it; the supervisor ends it, and waits for its end, if it does not need it."""
    before = opened()
    plan = with_template(plan_in(tmp_path)._replace(max_files=64), None, os.environ)
    first = FirstTemplate.of(Plan.from_text(plan.to_text()))
    assert first is not None
    assert all(os.get_inheritable(each) for each in first.descriptors)
    assert set(first.descriptors) == opened() - before
    assert is_there(first.pid)
    first.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(first.pid, os.WNOHANG)
    for each in first.descriptors:
        os.close(each)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan._replace(preload=True),
        lambda plan: plan._replace(directory=f"{plan.directory}/missing"),
        lambda plan: plan._replace(job={"text": TEXT_OF_A_MEGABYTE}),
        lambda plan: plan._replace(job={"text": TEXT_OF_A_MEGABYTE * 20}),
    ],
    ids=["preload", "no directory", "a long order", "too long an order"],
)
def test_a_supervisor_without_one_spawns_it_later(tmp_path: Path, change: Callable[[Plan], Plan]) -> None:
    """No process and no descriptor is left if it cannot be had, and the plan is as it was."""
    before = opened()
    plan = change(plan_in(tmp_path))
    assert with_template(plan, None, os.environ) == plan
    assert FirstTemplate.of(plan) is None
    assert opened() == before
