import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.config.target import Target, TargetKind


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("fastpoetry", TargetKind.PLUGIN, "fastpoetry"),
        ("tamed:fastpoetry", TargetKind.PLUGIN, "fastpoetry"),
        ("poem.two", TargetKind.PLUGIN, "poem.two"),
        ("twisted:ftp", TargetKind.TWISTED, "ftp"),
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
def test_a_target_is_told_by_its_text(text: str, kind: TargetKind, name: str) -> None:
    """Plugins, files, variables and deployments differ in how they are written."""
    assert Target.parse(text) == Target(kind, name)


@given(st.text())
def test_any_text_is_a_target(text: str) -> None:
    """Telling a target's kind never fails; what is wrong with it shows when it is loaded."""
    assert Target.parse(text).kind in TargetKind
