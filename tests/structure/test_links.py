"""Links between the pages beside the code; those inside docs/ are checked when the site is built."""

import re

import pytest

from tests.structure.source import ROOT

LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    """Every link to a file leads to a file."""
    targets = LINK.findall((ROOT / page).read_text("utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []
