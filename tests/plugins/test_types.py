import enum
import re
from collections.abc import Callable
from dataclasses import make_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import ConfigurationError, UsageError
from tamed.plugins.build import Given, build
from tamed.plugins.option import option
from tamed.plugins.values import Duration, Size


class Level(enum.Enum):
    LOW = 1
    VERY_HIGH = 2


class Colour(enum.Enum):
    RED = "rot"
    BLUE = "blau"


class Even(int):
    """A user's own type that is a number."""

    @classmethod
    def parse(cls, text: str) -> "Even":
        if int(text) % 2:
            raise ValueError(f"{text!r}: expected an even number")
        return cls(int(text))


class Silent:
    """A user's type with an error without a text."""

    @classmethod
    def parse(cls, _text: str) -> "Silent":
        raise ValueError


def read_text(hint: Any, text: object) -> Any:
    """Read one option of this type from the command line."""
    made: Any = make_dataclass("Options", [("value", hint, option())])
    return build(made, Given(flags={"value": text})).value


def read_file(hint: Any, value: object) -> Any:
    """Read one option of this type from a deployment file."""
    made: Any = make_dataclass("Options", [("value", hint, option())])
    return build(made, Given(table={"value": value}, file="verse.toml")).value


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "10", "10"),
        (str, "", ""),
        (int, "10", 10),
        (int, "-3", -3),
        (float, "1.5", 1.5),
        (bool, True, True),
        (bool, "Yes", True),
        (bool, "on", True),
        (bool, "1", True),
        (bool, "TRUE", True),
        (bool, "no", False),
        (bool, "off", False),
        (bool, "0", False),
        (Path, "a/b", Path("a/b")),
        (Level, "very-high", Level.VERY_HIGH),
        (Colour, "rot", Colour.RED),
        (Literal["a", 2], "2", 2),
        (Duration, "1h30m", Duration(5400)),
        (Size, "1 MB", Size(10**6)),
        (Even, "4", Even(4)),
        (list[int], ["1", "2"], [1, 2]),
        (list[int], "1, 2,", [1, 2]),
        (list[int], "", []),
        (tuple[int, ...], ["1"], (1,)),
        (set[Level], ["low", "low"], {Level.LOW}),
        (frozenset[str], "a,b", frozenset("ab")),
        (dict[str, int], ["a=1", "b=2"], {"a": 1, "b": 2}),
        (dict[str, str], "a=x=y, b=", {"a": "x=y", "b": ""}),
        (int | None, "5", 5),
        (int | None, "", None),
        (list[int] | None, "", None),
        (int | Literal["auto"], "auto", "auto"),
        (int | Literal["auto"], "3", 3),
        (float, "1e3", 1000.0),
        (float, "-0.5", -0.5),
    ],
)
def test_text_is_read_as_the_type_says(hint: Any, text: object, value: object) -> None:
    """Each type is read from its usual text, and the value has that type."""
    read = read_text(hint, text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "says"),
    [
        (int, "abc", "expected a whole number, got 'abc'"),
        (int, "1.5", "expected a whole number, got '1.5'"),
        (int, "", "expected a whole number, got ''"),
        (int, "x" * 1000, "expected a whole number, got '" + "x" * 60 + "…'"),
        (float, "nan", "expected a number, got 'nan'"),
        (float, "x", "expected a number, got 'x'"),
        (bool, "maybe", "expected true or false, got 'maybe'"),
        (Path, "", "expected a path, got ''"),
        (Path, "a\0b", "expected a path, got 'a\\x00b'"),
        (Level, "1", "expected low or very-high, got '1'"),
        (Literal["a", 2], "b", "expected a or 2, got 'b'"),
        (Literal["only"], "b", "expected only, got 'b'"),
        (
            Size,
            "10k",
            "expected a size in whole bytes, such as 512 KiB (of 1024), 1 MB (of 1000) or 4096, got '10k'",
        ),
        (Even, "3", "'3': expected an even number"),
        (Silent, "3", "expected a silent, got '3'"),
        (list[int], ["1", "x"], "expected a whole number, got 'x'"),
        (dict[str, int], ["a=b"], "expected a whole number, got 'b'"),
        (dict[str, int], ["a"], "expected KEY=VALUE, each value a whole number, got 'a'"),
        (dict[str, int], True, "expected KEY=VALUE, each value a whole number, got true"),
        (dict[str, int], ["=1"], "expected KEY=VALUE, each value a whole number, got '=1'"),
        (int | None, "x", "expected a whole number, got 'x'"),
        (int | Literal["auto"], "x", "expected a whole number or auto, got 'x'"),
        (int, "+1", "expected a whole number, got '+1'"),
        (int, "1_000", "expected a whole number, got '1_000'"),
        (float, ".5", "expected a number, got '.5'"),
        (float, "1e999", "expected a number, got '1e999'"),
        (int, "9" * 5000, "expected a whole number, got '" + "9" * 60 + "…'"),
    ],
)
def test_wrong_text_has_a_message_of_its_own(hint: Any, text: object, says: str) -> None:
    """The message has the expected and the given value; the command line has status 64."""
    with pytest.raises(UsageError) as caught:
        read_text(hint, text)
    assert str(caught.value) == f"--value: {says}"
    assert caught.value.status == 64


@pytest.mark.parametrize(
    ("hint", "written", "value"),
    [
        (str, "x", "x"),
        (int, 10, 10),
        (float, 1.5, 1.5),
        (float, 1, 1.0),
        (bool, True, True),
        (Path, "a", Path("a")),
        (Level, "low", Level.LOW),
        (Colour, "blau", Colour.BLUE),
        (Literal["a", 2], 2, 2),
        (Duration, "30s", Duration(30)),
        (Duration, 30, Duration(30)),
        (Duration, 0.5, Duration("500ms")),
        (Size, "1 MB", Size(10**6)),
        (Size, 512, Size(512)),
        (Even, 4, Even(4)),
        (list[Duration], ["30s", 30], [Duration(30), Duration(30)]),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (list[int], 3, [3]),
        (list[str], "a,b", ["a,b"]),
        (list[Duration] | None, "30s", [Duration(30)]),
        (int | None, 3, 3),
        (str | None, "", ""),
    ],
)
def test_values_in_a_file_have_their_own_types(hint: Any, written: object, value: object) -> None:
    """TOML types are accepted as they are; other types are written as text."""
    read = read_file(hint, written)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("hint", "written", "says"),
    [
        (int, "abc", ": expected a whole number, got 'abc'"),
        (int, "10000", ": expected a whole number, got '10000'; write it without quotes"),
        (int, 1.5, ": expected a whole number, got 1.5"),
        (int, True, ": expected a whole number, got true"),
        (bool, "true", ": expected true or false, got 'true'; write it without quotes"),
        (bool, "yes", ": expected true or false, got 'yes'"),
        (bool, 1, ": expected true or false, got 1"),
        (str, 5, ": expected a text, got 5"),
        (str, date(2026, 1, 1), ": expected a text, got a date"),
        (float, float("inf"), ": expected a number, got inf"),
        (Path, 5, ": expected a path, got 5"),
        (Path | None, "", ": expected a path, got ''"),
        (Level, 1, ": expected low or very-high, got 1"),
        (Literal[1, 2], True, ": expected 1 or 2, got true"),
        (Duration, True, ": expected a duration, got true"),
        (Duration, [], ": expected a duration, got a list"),
        (
            Size,
            1.5,
            ": expected a size in whole bytes, such as 512 KiB (of 1024), 1 MB (of 1000) or 4096, got 1.5",
        ),
        (list[int], "1", ": expected a whole number, got '1'; write it without quotes"),
        (list[int], {}, ": expected a whole number, got a table"),
        (list[int], [1, "x"], "[1]: expected a whole number, got 'x'"),
        (dict[str, int], {"a": "x"}, ".a: expected a whole number, got 'x'"),
        (dict[str, list[int]], {"a": [1, "x"]}, ".a[1]: expected a whole number, got 'x'"),
        (dict[str, int], [1], ": expected a table, each value a whole number, got a list"),
        (str, {}, ": expected a text, got a table"),
    ],
)
def test_a_wrong_value_in_a_file_is_named_with_its_place(hint: Any, written: object, says: str) -> None:
    """The message is that of the command line, preceded by the key and the place in it."""
    with pytest.raises(ConfigurationError) as caught:
        read_file(hint, written)
    assert str(caught.value) == f"verse.toml: value{says}"
    assert caught.value.status == 78


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "=", "1\n[x]"])
def test_no_text_in_a_file_is_too_strange_to_be_refused(text: str) -> None:
    """Checking whether a text would be valid without quotes raises nothing."""
    with pytest.raises(ConfigurationError, match="expected a whole number, got"):
        read_file(int, text)


def test_a_number_that_is_too_long_is_refused() -> None:
    """TOML allows numbers with more digits than Python prints; integers have at most 64 bits."""
    assert read_file(int, 2**63 - 1) == 2**63 - 1
    for number in (2**63, -(2**63) - 1, 16**5000):
        with pytest.raises(ConfigurationError, match="expected a whole number, got"):
            read_file(int, number)
    with pytest.raises(ConfigurationError, match="expected a number, got a very long number"):
        read_file(float, 16**5000)
    with pytest.raises(ConfigurationError, match="such as 30s, 5m, 1h30m or 500ms, got a very long number"):
        read_file(Duration, 16**5000)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
hints: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(str, int, float, bool, Path, Level, Duration, Size, list[int], dict[str, Size], set[str]),
        *(int | None, Literal["a", 1], tuple[Path, ...]),
        int | Literal["auto"],
    ]
)


def refusal(read: Callable[[Any, object], object], hint: Any, value: object) -> str:
    """Return the message of a refused value; a harmless one if it is accepted."""
    try:
        read(hint, value)
    except (UsageError, ConfigurationError) as error:
        return str(error)
    return "as expected"


@given(hints, anything)
def test_any_value_in_a_file_is_read_or_refused_in_one_line(hint: Any, value: object) -> None:
    """Any file content is read or gives a one-line error with the expected value."""
    assert re.fullmatch(".*expected.*", refusal(read_file, hint, value))


@given(hints, st.text() | st.lists(st.text(), max_size=3))
def test_any_text_is_read_or_refused_in_one_line(hint: Any, text: object) -> None:
    """Any typed text is read or gives a one-line error with the expected value."""
    assert re.fullmatch(".*expected.*", refusal(read_text, hint, text))
