"""The page as HTML: what it shows, that it lets nothing else in, and that it can be read."""

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from tamed.ops.observer import Observer, View
from tamed.ops.page import Page, Selection
from tests.ops.views import STATUS, TREE, WORKER, Told

pytestmark = pytest.mark.anyio

TEMPLATE = (files("tamed.ops") / "page.html").read_text("utf-8")
EVIL = '</script><script>alert("1")</script><img src=x onerror=alert(1)>\x1b[31m{{log}}'


class Texts(HTMLParser):
    """Collects the tags of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Take a text."""
        self.text += data


async def seen(told: Told) -> View:
    """Return the view of what a supervisor tells."""
    observer = Observer(told, "bare")
    await observer.look()
    return observer.view


def page_of(view: View, **query: str) -> Texts:
    """Return the page for a query."""
    return Texts(Page().whole(view, Selection({name: [value] for name, value in query.items()})))


async def test_page_shows_the_daemon_without_a_script() -> None:
    """State, figures, workers by generation, the tree of services, events with reasons, and the log."""
    told = Told()
    old = WORKER | {"pid": 5, "generation": 0, "state": "draining"}
    told.status_now = STATUS | {"workers": [WORKER, old], "reloading": True}
    told.happens("death", "worker 3 was killed", lines=["its last words"], lived=70.0, worker=3)
    told.logs("loaded a poem")
    text = page_of(await seen(told)).text
    for part in (
        "app is running reloading",
        "1 of 1 ready",
        "2.0 MB",
        "127.0.0.1:10000",
        "generation 0",
        "draining",
        "server running, 2 restarts a poem",
        "worker 3 was killed",
        "lived1 min",
        "its last words",
        "verse: loaded a poem",
    ):
        assert part in text


async def test_page_shows_what_is_wrong() -> None:
    """A failing daemon with its last error, a reload that failed, and a service that does not run."""
    told = Told()
    failed = TREE | {"children": [TREE | {"name": "db", "state": "failed"}]}
    told.status_now = STATUS | {
        "state": "failing",
        "checks": [
            {"name": "db", "gates": False, "asked": 2, "failing": 1, "why": "no answer"},
            {"name": "cache", "gates": True, "asked": 2, "failing": 0, "why": ""},
            {"name": "queue", "gates": True, "asked": 0, "failing": 0, "why": ""},
        ],
        "last_error": "worker 8 failed",
        "last_error_at": "2026-11-28T10:00:00Z",
        "workers": [WORKER, WORKER | {"pid": 9, "number": 2, "tree": failed}],
    }
    told.happens(
        "reload",
        "the reload failed: no poem",
        outcome="failed",
        asked="SIGHUP",
        changed=["workers"],
        took=0.5,
        stages={"reading": 0.25, "loading": 61.0},
        reason="no poem\nin there",
        waited_for="services start",
    )
    page = page_of(await seen(told))
    for part in (
        "Last error, 2026-11-28 10:00:00: worker 8 failed",
        "The check of db fails in 1 of 2 workers: no answer",
        "check of cache passes",
        "check of queue no result yet",
        "the reload failed: no poem",
        "requested bySIGHUP",
        "changedworkers",
        "took500 ms",
        "reading 250 ms, loading 1 min",
        "no poem\nin there",
        "db failed",
    ):
        assert part in page.text
    opened = [attributes for tag, attributes in page.tags if tag == "details" and "open" in attributes]
    assert [each["id"] for each in opened] == ["tree-8", "tree-9"]


async def test_page_is_there_without_an_answer() -> None:
    """It says why, and shows what was known before."""
    told = Told()
    told.why_not = "the supervisor is busy"
    assert "No answer: the supervisor is busy" in page_of(await seen(told)).text
    told.why_not = ""
    told.status_now = STATUS | {"workers": []}
    told.happens("reload", "reloaded", changed=[])
    text = page_of(await seen(told)).text
    assert "There are no workers." in text
    assert "no setting" in text


async def test_log_is_filtered_by_level_and_worker() -> None:
    """By the query, which a form without a script sends; nonsense in it selects all."""
    told = Told()
    told.logs("a detail", 7, 1)
    told.logs("a warning", 4, 2)
    told.logs("an error", 3, None)
    view = await seen(told)

    def shown(**query: str) -> list[str]:
        return re.findall(r"verse: (an? [a-z]+)", page_of(view, **query).text)

    assert shown() == shown(level="x", worker="-1") == ["an error", "a warning", "a detail"]
    assert shown(level="4") == ["an error", "a warning"]
    assert shown(worker="2") == ["a warning"]
    assert shown(level="3", worker="daemon") == ["an error"]


async def test_nothing_that_others_say_becomes_part_of_the_page() -> None:
    """Names, summaries, events and records are escaped, wherever they stand."""
    told = Told()
    tree = TREE | {"name": EVIL, "summary": EVIL, "state": EVIL}
    told.status_now = STATUS | {"name": EVIL, "endpoints": [EVIL], "last_error": EVIL, "last_error_at": EVIL}
    told.status_now["workers"] = [WORKER | {"tree": tree, "state": EVIL}]
    told.happens(EVIL, EVIL, asked=EVIL, changed=[EVIL], lines=[EVIL], reason=EVIL)
    told.happens("reload", EVIL, outcome=EVIL, asked=EVIL, changed=EVIL, reason=EVIL, stages={EVIL: EVIL})
    told.logs(EVIL)
    page = page_of(await seen(told))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert "\x1b" not in page.text


def test_page_runs_its_own_script_and_nothing_else() -> None:
    """The policy has the hashes of style and script, and neither names another address."""
    policy = Page().headers["content-security-policy"]
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", TEMPLATE, re.DOTALL)
        digest = b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|//\w|style=|\bon\w+=", TEMPLATE)


# Contrast: WCAG 2.2, success criteria 1.4.3 (text, 4.5) and 1.4.11 (graphics and controls, 3).

TEXTS = [
    *(("text", "page"), ("text", "panel"), ("quiet", "page"), ("quiet", "panel"), ("link", "page")),
    *((kind, f"{kind}-panel") for kind in ("good", "warn", "bad")),
]
GRAPHICS = [("spark", "page"), ("line", "page"), ("link", "panel")]


def colours(scheme: str) -> dict[str, str]:
    """Return the colours of a scheme by their names."""
    light, _, dark = TEMPLATE.partition("prefers-color-scheme: dark")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))


def luminance(colour: str) -> float:
    """Return the relative luminance, as WCAG defines it."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_to_read(scheme: str) -> None:
    """In both schemes: of texts on what they stand on, and of lines."""
    known = colours(scheme)
    used = set(re.findall(r"var\(--([\w-]+)\)", TEMPLATE))
    assert used <= known.keys()
    too_low = {}
    for pairs, least in ((TEXTS, 4.5), (GRAPHICS, 3.0)):
        for pair in pairs:
            less, more = sorted(luminance(known[name]) for name in pair)
            if (ratio := (more + 0.05) / (less + 0.05)) < least:
                too_low[pair] = round(ratio, 2)
    assert too_low == {}
    assert {name for pair in TEXTS + GRAPHICS for name in pair} == known.keys()
