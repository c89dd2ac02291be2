"""Text of others, in logs and on terminals."""

import json
import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed._os.text import shown, shown_in_json

ACTS = {"Cc", "Zl", "Zp"}


@given(st.text())
def test_nothing_acts_on_a_terminal(text: str) -> None:
    """Whatever was said: but for tab and newline there is no control character, and no turn of direction."""
    for each in shown(text):
        assert each in "\t\n" or unicodedata.category(each) not in ACTS
        assert not unicodedata.bidirectional(each).endswith(("O", "E", "I", "PDF"))


@given(st.text())
def test_no_line_after_the_first_looks_like_one(text: str) -> None:
    """Each begins with the indentation, by any reader's idea of a line."""
    lines = shown(text, "    ").splitlines()
    assert all(line.startswith("    ") for line in lines[1:])


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"])))
def test_what_is_printable_stays(text: str) -> None:
    """Letters of any alphabet are as they were."""
    assert shown(text) == text


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_json_means_the_same(told: dict[str, object]) -> None:
    """It is read back as what it was, and is safe to print."""
    text = shown_in_json(json.dumps(told, ensure_ascii=False))
    assert json.loads(text) == told
    assert all(unicodedata.category(each) not in ACTS for each in text)


def test_escapes_are_readable() -> None:
    """As Python writes them."""
    assert shown("a\x1b]0;b\x07\x9b31m\r\u202e") == r"a\x1b]0;b\x07\x9b31m\x0d\u202e"


@pytest.mark.parametrize("text", ["\x1b", "\n", "\u2028", "\n\x1b", "ab\x9b"], ids=ascii)
def test_escaping_takes_some_times_the_memory_of_a_text(text: str) -> None:
    """Also where nearly each character is escaped."""
    text *= 30_000
    tracemalloc.start()
    try:
        shown(text, "    ")
        shown_in_json(text)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 30 * len(text.encode())
