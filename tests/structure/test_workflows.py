"""The workflows of a hosted repository: they run what we run here, and may do no more than they need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.structure.source import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EACH = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
_TARGET = re.compile(r"^([a-z-]+):.*##", re.MULTILINE)


def read(workflow: Path) -> dict[str, Any]:
    """Return a workflow."""
    found: dict[str, Any] = yaml.safe_load(workflow.read_text("utf-8"))
    return found


def steps(workflow: Path) -> list[dict[str, Any]]:
    """Return the steps of all its jobs."""
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


@EACH
def test_a_workflow_runs_what_there_is(workflow: Path) -> None:
    """Its commands are targets of the Makefile, and scripts that can be executed."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text("utf-8")))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    for command in commands:
        words = command.removeprefix("sudo ").split()
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[0].startswith(".ci/"):
            assert (ROOT / words[0]).stat().st_mode & 0o100, command
    assert workflow.stem == "release" or commands


@EACH
def test_a_workflow_may_read_only(workflow: Path) -> None:
    """One job may more: that which publishes shows the index who it is, and runs no code of ours."""
    found = read(workflow)
    assert found["permissions"] == {"contents": "read"}
    for name, job in found["jobs"].items():
        assert "timeout-minutes" in job
        if "permissions" in job:
            assert (workflow.stem, name, job["permissions"]) == ("release", "publish", {"id-token": "write"})
            assert not [step for step in job["steps"] if "run" in step or "checkout" in step["uses"]]


def test_the_release_is_named_as_the_version() -> None:
    """The step that compares them finds the version."""
    (command,) = (
        step["run"]
        for step in steps(ROOT / ".github" / "workflows" / "release.yml")
        if "_version.py" in step.get("run", "")
    )
    pattern = re.search(r"s/(\^.*\$)/", command)
    assert pattern is not None
    expression = pattern[1].replace(r"\(", "(").replace(r"\)", ")")
    assert re.search(expression, (ROOT / "src/tamed/_version.py").read_text("utf-8"), re.MULTILINE)
