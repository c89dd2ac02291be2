"""The programs on the pages: what a reader copies can be loaded, and is what the page says it is."""

import re
import tomllib
from typing import Any

from tamed.service.application import Application
from tests.structure.source import ROOT


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in a language."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_no_page_believes_the_number_in_a_pid_file() -> None:
    """Whoever may write the file could have root signal any process; ``tamed`` asks the lock's holder."""
    belief = re.compile(
        r"\$\(\s*(cat|<|head|read)[^)]*pid|`(cat|head) [^`]*pid|pkill|killall|\bkill\b.*\.pid"
    )
    pages = (ROOT / "docs").rglob("*.md")
    assert [str(page) for page in pages if belief.search(page.read_text("utf-8"))] == []


def run(*programs: str) -> dict[str, Any]:
    """Run programs one after the other, as one module, and return its names."""
    names: dict[str, Any] = {"__name__": "copied"}
    for program in programs:
        exec(program, names)
    return names


def test_the_application_file_of_the_readme_loads() -> None:
    """The first program of the page is an application file with a poem and a server."""
    application = run(blocks("README.md", "python")[0])["application"]
    assert isinstance(application, Application)
    assert [child.name for child in application] == ["poetry", "stream-server"]


def test_the_deployment_file_of_its_page_names_two_services() -> None:
    """It is TOML with the two poems."""
    text = blocks("docs/reference/deployment-file.md", "toml")[0]
    assert set(tomllib.loads(text)["services"]) == {"ecstasy", "science"}
