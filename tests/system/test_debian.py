"""The Debian packages: built, judged, installed and tried with the tools of Debian, in a root of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.structure.source import ROOT
from tests.supervised.daemon import needs_root

pytestmark = [pytest.mark.system, needs_root]

SCRIPT = ROOT / ".ci" / "debian-package"
UNAVAILABLE = 69  # sysexits.h: there is no root directory to build in


def test_debian_builds_and_accepts_them(tmp_path: Path) -> None:
    """Lintian has neither an error nor a warning, and the packages pass autopkgtest."""
    done = subprocess.run(
        [SCRIPT, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    assert sorted(path.name.partition("_")[0] for path in tmp_path.glob("*.deb")) == [
        "python3-tamed",
        "tamed",
    ]
