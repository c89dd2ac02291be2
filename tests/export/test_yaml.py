"""The writer of YAML: what a reader makes of its text, and how the text looks."""

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from tamed.export.files import Noted, to_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(
    r"\A[\ta-z0-9 .:#|~&*!%@`'\"\\{}\[\]\n-]{0,40}\Z"
)
WORDS = st.sampled_from(
    ["yes", "No", "null", "~", "1e3", "0x1", "12:30", "-", "=", "<<", "1_0", ".inf", "off"]
)
VALUES = st.recursive(
    TEXTS | WORDS | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS | WORDS, VALUES, max_size=4))
def test_a_reader_gets_what_was_written(document: dict[str, Any]) -> None:
    """Also what looks like a number, a truth value or a mark of YAML's stays a text."""
    assert (yaml.safe_load(to_yaml(document)) or {}) == document


def test_it_looks_as_people_write_it() -> None:
    """Lines are a block, comments are above what they are about, and lists of mappings are compact."""
    document: dict[str, Any] = {
        "kind": "Pod",
        "ready": True,
        "ports": Noted([{"name": "a", "port": 1}, Noted({"name": "b"}, "second")], "two\nports"),
        "first": [{"why": Noted("x", "inside")}],
        "nothing": {},
        "none": [],
        "text": "one\n\n  two\n",
        "open": "one\ntwo",
        "number": "80",
    }
    assert (
        to_yaml(document)
        == """\
kind: Pod
ready: true
# two
# ports
ports:
  - name: a
    port: 1
  # second
  - name: b
first:
  # inside
  - why: x
nothing: {}
none: []
text: |
  one

    two
open: |-
  one
  two
number: "80"
"""
    )
