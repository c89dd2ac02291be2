import subprocess
import sys
from pathlib import Path

from tamed.cli.new import write_package
from tests.docs.reader import blocks_of
from tests.structure.source import ROOT
from tests.structure.test_docs_programs import blocks


def run_pytest(folder: Path, *options: str) -> str:
    """Run the tests in a folder; return the output, which must be that of a success."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """Each program of the page is a file of tests that can be copied."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    )
    for number, program in enumerate(blocks("docs/testing.md", "python")):
        (tmp_path / f"test_{number}.py").write_text(program)
    assert "6 passed" in run_pytest(tmp_path, "-o", "anyio_mode=auto")


def test_the_package_of_the_tutorial_passes_its_tests(tmp_path: Path) -> None:
    """What ``tamed new`` wrote, changed as the page says."""
    write_package("poemhour", tmp_path, "tamed")
    folder = tmp_path / "poemhour"
    for block in blocks_of(ROOT / "docs/tutorial/package.md"):
        if block.name:
            (folder / block.name).write_text(block.text)
    assert "2 passed" in run_pytest(folder, "-o", "pythonpath=src")
