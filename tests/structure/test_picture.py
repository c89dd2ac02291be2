"""The picture in ARCHITECTURE.md is of the source."""

from tests.structure.picture import draw
from tests.structure.source import ROOT


def test_the_picture_shows_the_layers_as_they_are() -> None:
    """What ``python -m tests.structure.picture`` draws now stands in ARCHITECTURE.md."""
    assert f"```text\n{draw()}\n```" in (ROOT / "ARCHITECTURE.md").read_text("utf-8")
