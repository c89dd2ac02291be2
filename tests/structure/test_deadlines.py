"""A deadline in a test is there for a hang, so there is one for all of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

# Where the clock is the test's own, and seconds cost nothing.
_OWN_CLOCK = {"service", "testing/test_clock.py", "builtin/test_poem_cache.py"}

# What takes a deadline: as which argument, where it is not called `timeout`.
_POSITIONS = {"settimeout": 0, "create_connection": 1, "join": 0, "result": 0, "wait_for": 1, "timeout": 0}


def _files() -> list[Path]:
    return [
        path
        for path in sorted(TESTS.rglob("*.py"))
        if not any(path.is_relative_to(TESTS / part) for part in _OWN_CLOCK)
    ]


def _deadlines(tree: ast.AST) -> Iterator[ast.Constant]:
    """Return the deadlines of calls that are written as numbers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        position = _POSITIONS.get(name)
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        given = [named["timeout"]] if "timeout" in named and "clock" not in named else []
        given += node.args[position : position + 1] if position is not None else []
        yield from (each for each in given if isinstance(each, ast.Constant))


def test_no_deadline_is_shorter_than_a_hang() -> None:
    """One of seconds passes on a machine that has nothing else to do. Of parts of one a test may be about."""
    found = [
        f"{path.relative_to(TESTS)}:{each.lineno}: {each.value}"
        for path in _files()
        for each in _deadlines(ast.parse(path.read_text()))
        if isinstance(each.value, int | float) and 1.0 < each.value < 150
    ]
    assert not found, f"use PATIENCE: {found}"
