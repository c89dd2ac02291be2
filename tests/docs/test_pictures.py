"""The diagrams of the pages: that what they name is there, that they are shown, and that texts fit."""

import runpy
import tomllib
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tamed.service.lifecycle import State
from tamed.service.service import Service
from tests.structure.source import ROOT

PICTURES = {file.stem: file for file in (ROOT / "docs" / "_pictures").glob("*.toml")}
SVG = "{http://www.w3.org/2000/svg}"
CHARACTER = 6.3  # pixels of a line of the font, at most, on average


def picture(name: str) -> dict[str, Any]:
    """Return the text of a picture."""
    return tomllib.loads(PICTURES[name].read_text("utf-8"))


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """Return the names of the program that draws."""
    return runpy.run_path(str(ROOT / "docs" / "_pictures" / "diagram.py"))


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_drawn_with_its_texts_inside(program: dict[str, Any], name: str) -> None:
    """As SVG with a title, and no text passes the edge of the picture."""
    drawn = ET.fromstring(program["draw"](picture(name), name))
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    assert drawn.findtext(f"{SVG}title") == picture(name)["title"]
    for text in drawn.iter(f"{SVG}text"):
        half = {"start": 0.0, "middle": 0.5}[text.attrib["text-anchor"]] * len(text.text or "") * CHARACTER
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        assert x - half >= 0
        assert x + half <= width, text.text
        assert 0 < y < height


@pytest.mark.parametrize("name", sorted(name for name in PICTURES if "boxes" in picture(name)))
def test_the_texts_of_a_box_fit(name: str) -> None:
    """Each line is shorter than its box is wide."""
    for box in picture(name)["boxes"].values():
        assert max(map(len, box["text"])) * CHARACTER < box["width"] * 696, box


def test_every_picture_is_on_a_page_that_speaks_of_it() -> None:
    """None is left over, and none is missing."""
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert {name for name in PICTURES if f"```{{picture}} {name}\n" in pages} == set(PICTURES)


def test_the_life_of_a_service_has_all_states_and_hooks() -> None:
    """The states are those of the code, and the hooks on the arrows are methods of a service."""
    life = picture("service")
    assert set(life["boxes"]) == {state.name for state in State}
    hooks = {arrow["text"].removesuffix("()") for arrow in life["arrows"] if "()" in arrow.get("text", "")}
    assert hooks == {"prepare", "start", "stop", "release"}
    assert all(callable(getattr(Service, hook)) for hook in hooks)
