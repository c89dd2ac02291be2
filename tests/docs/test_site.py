"""The site of ``make docs``, as a browser shows it. The build has checks of its own: docs/conf.py."""

import filecmp
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.structure.source import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.unmeasured,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]

SECRET = "of-the-builder-alone"

# Whatever is wider than the window, and does not scroll by itself.
WIDER = "document.documentElement.scrollWidth - innerWidth"
FOUND = """new Promise(done => {
  const look = () => {
    const text = document.querySelector("#search-results").innerText;
    if (!/found \\d+|matching/i.test(text)) return false;
    done([...document.querySelectorAll("#search-results li > a")].map(each => each.getAttribute("href")));
    return true;
  };
  const what = {subtree: true, childList: true, characterData: true};
  if (!look()) new MutationObserver(look).observe(document, what);
})"""
COPIED = """new Promise(done => {
  document.addEventListener("copy", () => done(document.querySelector("body > textarea").value), true);
  document.querySelector("button.copybtn").click();
})"""


def build(folder: Path) -> Path:
    """Build the site in a folder, in an environment with a secret; return where it is."""
    options = ["--fresh-env", "--fail-on-warning", "--quiet", "-d", str(folder / "doctrees")]
    environ = {**os.environ, "SECRET": SECRET}
    subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ROOT / "docs", folder / "site"], env=environ, check=True
    )
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site."""
    return build(tmp_path_factory.mktemp("built"))


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Serve the site; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_is_built_again_is_the_same(site: Path, tmp_path: Path) -> None:
    """Byte by byte; and nothing of who built it is in it."""
    again = build(tmp_path)
    files = sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    same, different, failed = filecmp.cmpfiles(site, again, files, shallow=False)
    assert (different, failed) == ([], [])
    names = (SECRET, str(ROOT), os.environ["HOME"] + "/")
    contents = {name: (site / name).read_bytes() for name in same}
    assert [name for name, text in contents.items() if any(each.encode() in text for each in names)] == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_the_window(site: Path, address: str, width: int) -> None:
    """In light and dark, and no page has an error."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    assert len(pages) > 50
    with Browser() as browser:
        for number, page in enumerate(pages):
            browser.show_as(width=width, height=900, dark=number % 2 == 1)
            browser.open(f"{address}/{page}")
            assert browser.run(WIDER) <= 0, page
        assert browser.problems == []


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("reload", "reloading"),
        ("nginx", "guides/nginx"),
        ("systemd", "moving/systemd"),
        ("uvicorn", "moving/uvicorn"),
    ],
)
def test_the_search_finds_the_page_on_a_subject(address: str, words: str, page: str) -> None:
    """It comes first."""
    with Browser() as browser:
        browser.show_as(width=1280, height=900)
        browser.open(f"{address}/search.html?q={words}")
        assert browser.run(FOUND)[0].partition("?")[0].partition("#")[0] == f"{page}.html"


def test_what_is_copied_has_no_prompt(address: str) -> None:
    """Nor the output: it can be pasted into a shell."""
    with Browser() as browser:
        browser.open(f"{address}/tutorial/daemon.html")
        copied = browser.run(COPIED)
    assert copied == "tamed start fastpoetry.py\nnc localhost 10000 < /dev/null"


def test_the_pages_for_programs_that_read_are_there(site: Path) -> None:
    """Each link of ``llms.txt``."""
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text("utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (site / link).is_file()] == []
