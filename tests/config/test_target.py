import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.config.job import Target, TargetKind
from tamed.config.kinds import kind_of, parse
from tamed.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("fastpoetry", TargetKind.PLUGIN, "fastpoetry"),
        ("tamed:fastpoetry", TargetKind.PLUGIN, "fastpoetry"),
        ("poem.two", TargetKind.PLUGIN, "poem.two"),
        ("fastpoetry.py", TargetKind.FILE, "fastpoetry.py"),
        ("server.tac", TargetKind.FILE, "server.tac"),
        ("./server", TargetKind.FILE, "./server"),
        ("verse/server:application", TargetKind.FILE, "verse/server:application"),
        ("package.module:application", TargetKind.MODULE, "package.module:application"),
        ("module:app", TargetKind.MODULE, "module:app"),
        (":app", TargetKind.MODULE, ":app"),
        ("verse.toml", TargetKind.DEPLOYMENT, "verse.toml"),
        ("/etc/verse.toml", TargetKind.DEPLOYMENT, "/etc/verse.toml"),
    ],
)
def test_the_kind_of_a_target_is_decided_from_its_text(text: str, kind: TargetKind, name: str) -> None:
    """Plugins, files, variables and deployments are distinguished by their spelling."""
    assert Target.parse(text) == Target(kind, name)


@given(st.text())
def test_any_text_is_a_target(text: str) -> None:
    """Parsing never fails; errors appear when the target is loaded."""
    assert Target.parse(text).kind in TargetKind


@pytest.mark.parametrize("text", ["twisted:ftp", "twisted:ftp:more"])
def test_a_prefix_says_which_kind_is_meant(text: str) -> None:
    """The part after the prefix is passed to the kind unchanged."""
    assert parse(text) == Target(TargetKind.FOREIGN, text.partition(":")[2], "twisted")


def test_a_kind_of_others_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prefix of another distribution's kind is recognized only if no module has that name."""
    (tmp_path / "verses").mkdir()
    (tmp_path / "verses" / "kind.py").write_text(
        "from tamed.config.kinds import Kind\nfrom tamed.service.service import Service\n"
        "class Verses(Kind):\n    def prepare(self, job):\n        print('prepared', job.target.name)\n"
        "    def make(self, job, settings):\n        return Service('verse')\n"
    )
    info = tmp_path / "verses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: verses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tamed.targets]\nsonnet = verses.kind:Verses\n")
    script = (
        "from tamed.config.kinds import kind_of, parse; from tamed.config.job import Job, Reading\n"
        "from tamed.config.load import load\n"
        "target = parse('sonnet:18'); print(target.kind.name, target.name, target.prefix)\n"
        "print(load(Reading.of(Job(target)))['verse'])\n"
        "print(parse('json:tool').kind.name, parse('ballad:1').kind.name)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "FOREIGN 18 sonnet",
        "prepared 18",
        "<Service verse idle>",
        "MODULE MODULE",
    ]


def test_a_kind_that_nobody_has_is_named() -> None:
    """The error contains the prefix."""
    with pytest.raises(
        UsageError, match="targets ballad:NAME: no installed package provides this kind of target"
    ):
        kind_of("ballad")
