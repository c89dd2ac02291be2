"""Links between the pages beside the code; those inside docs/ are checked when the site is built."""

import re

import pytest

from tests.structure.source import ROOT

FILE = re.compile(r"`([a-z_0-9/]+\.py)`")
LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    """Every link to a file leads to a file."""
    targets = LINK.findall((ROOT / page).read_text("utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_files_of_the_architecture_exist() -> None:
    """Every file that ARCHITECTURE.md names, mostly by the end of its path, is there."""
    paths = [
        f"/{path.relative_to(ROOT)}" for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    named = set(FILE.findall((ROOT / "ARCHITECTURE.md").read_text("utf-8")))
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in paths)} == set()
