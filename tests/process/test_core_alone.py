"""The core without the services in the box and without the bridge to Twisted: nobody imports either."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE
from tests.process.clients import fetch
from tests.structure.source import PACKAGE, ROOT, SOURCE

pytestmark = pytest.mark.unmeasured  # a copy of the package would be counted as more of it

APPLICATION = """
from tamed import Application, StreamServer

async def poem(reader, writer):
    writer.write(b"a poem\\n")

application = Application("verse", StreamServer("127.0.0.1:0", poem))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Copy the package without the two, and return an environment in which that is found first."""
    folder = tmp_path_factory.mktemp("alone")
    left_out = shutil.ignore_patterns("builtin", "twisted")
    shutil.copytree(SOURCE / PACKAGE, folder / PACKAGE, ignore=left_out)
    assert not (folder / "tamed" / "twisted").exists()
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(*words: str, cwd: Path, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run Python in that environment."""
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "two"])
def test_an_application_runs_without_them(
    alone: Mapping[str, str], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """On its own and with workers."""
    (tmp_path / "app.py").write_text(APPLICATION)
    with TamedProcess("run", *options, "app.py", cwd=tmp_path, env=alone) as process:
        port = process.expect(r"listening on 127.0.0.1:(\d+)")[1]
        process.expect("is ready")
        assert fetch(f"127.0.0.1:{port}") == b"a poem\n"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_plugin_of_the_box_is_missed(alone: Mapping[str, str], tmp_path: Path) -> None:
    """The message says what is missing."""
    done = run("-P", "-m", "tamed", "run", "fastpoetry", cwd=tmp_path, env=alone)
    assert done.returncode == 70
    assert "No module named 'tamed.builtin'" in done.stderr.splitlines()[-1]


def test_the_tests_of_the_core_pass_without_them(alone: Mapping[str, str]) -> None:
    """Those of services, of which everything is made."""
    told = run("-c", "import tamed; print(tamed.__file__)", cwd=ROOT, env=alone)
    assert told.stdout.startswith(alone["PYTHONPATH"].partition(os.pathsep)[0])
    tests = ["tests/service/test_lifecycle.py", "tests/service/test_multi.py", "tests/test_errors.py"]
    done = run("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests, cwd=ROOT, env=alone)
    assert done.returncode == 0, done.stdout
