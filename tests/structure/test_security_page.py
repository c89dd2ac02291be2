"""The page on security: each line has a test that exists, and each test of security has a line."""

import ast
import re
import tomllib

import pytest

from tests.structure.source import ROOT
from tests.structure.test_docs_reference import sections, table

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
PLACES = ["A client", "A logged-in client", "The application", "The service's user", "Another local user"]


def names_in(file: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


@pytest.mark.parametrize("place", PLACES)
def test_every_line_has_its_tests(place: str) -> None:
    """Each row of each place names tests, and they are there."""
    rows = table(sections(PAGE, 2)[place])
    assert rows
    for row in rows:
        named = NAMED.findall(row[2])
        assert named, row
        assert [f"{file}::{name}" for file, name in named if name not in names_in(file)] == []


def test_every_test_of_security_has_a_line() -> None:
    """What tests/security shows is said on the page."""
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "security").glob("test_*.py")]
    there = {(file, name) for file in files for name in names_in(file)}
    assert sorted(there - set(NAMED.findall(PAGE))) == []


def test_the_place_to_report_to_is_the_projects_own() -> None:
    """What SECURITY.md says of where to report is what the package's metadata says: nothing yet, or there."""
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    addresses = project.get("urls", {})
    assert ("There is no public repository" in text) == (not addresses)
    assert [address for address in addresses.values() if address not in text] == []
