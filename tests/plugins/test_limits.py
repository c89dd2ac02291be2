from dataclasses import make_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import ApplicationFailed, ConfigurationError, UsageError
from tamed.plugins.build import Given, build
from tamed.plugins.describe import describe
from tamed.plugins.option import REQUIRED, option
from tamed.plugins.values import Duration, Size


def options(hint: Any, default: Any = REQUIRED, **limits: Any) -> Any:
    """Return an options class with one option of this type, limited."""
    return make_dataclass("Options", [("value", hint, option(default, **limits))])


@pytest.mark.parametrize(
    ("hint", "limits", "text", "value"),
    [
        (int, {"ge": 1, "le": 5}, "5", 5),
        (float, {"gt": 0, "lt": 1}, "0.5", 0.5),
        (Duration, {"gt": 0}, "5s", Duration(5)),
        (Size, {"le": 10**6}, "1 MB", Size(10**6)),
        (int | None, {"ge": 1}, "", None),
        (int | Literal["auto"], {"ge": 1}, "auto", "auto"),
        (list[int], {"ge": 1}, ["1", "2"], [1, 2]),
        (dict[str, int], {"ge": 1}, ["a=1"], {"a": 1}),
    ],
)
def test_a_number_within_its_limits_is_taken(hint: Any, limits: Any, text: object, value: object) -> None:
    """Limits apply to the numbers in a type; other values are not checked."""
    assert build(options(hint, **limits), Given(flags={"value": text})).value == value


@pytest.mark.parametrize(
    ("hint", "limits", "text", "says"),
    [
        (int, {"ge": 1, "le": 5}, "0", "expected a whole number, at least 1, at most 5, got '0'"),
        (int, {"ge": 1, "le": 5}, "6", "expected a whole number, at least 1, at most 5, got '6'"),
        (int | None, {"ge": 1}, "0", "expected a whole number, at least 1, got '0'"),
        (float, {"lt": 1.5}, "1.5", "expected a number, less than 1.5, got '1.5'"),
        (Duration, {"gt": 0}, "0s", "expected a duration, more than 0, got '0s'"),
        (list[int], {"ge": 1}, ["1", "0"], "expected a whole number, at least 1, got '0'"),
        (dict[str, int], {"ge": 1}, ["a=0"], "expected a whole number, at least 1, got '0'"),
    ],
)
def test_a_number_beyond_its_limits_is_refused(hint: Any, limits: Any, text: object, says: str) -> None:
    """The message states the limits in words."""
    with pytest.raises(UsageError) as caught:
        build(options(hint, **limits), Given(flags={"value": text}))
    assert str(caught.value) == f"--value: {says}"


def test_limits_hold_in_a_file_too() -> None:
    """The same limits apply in every source."""
    with pytest.raises(ConfigurationError, match=r"^f.toml: value\[1\]: expected a whole number, at least 1"):
        build(options(list[int], ge=1), Given(table={"value": [1, 0]}, file="f.toml"))


@pytest.mark.parametrize("hint", [str, bool, Path, Literal[1, 2], list[str], str | None])
def test_what_is_no_number_cannot_have_limits(hint: Any) -> None:
    """Limits without a number are an error of the declaration."""
    with pytest.raises(
        ApplicationFailed, match=r"^option Options.value: the type has no number that could be"
    ):
        describe(options(hint, ge=1))


def test_a_default_beyond_the_limits_is_refused() -> None:
    """A directly constructed instance obeys them, too."""
    with pytest.raises(ApplicationFailed, match="its default 0 does not match its type: a whole number, at"):
        describe(options(int, 0, ge=1))


def test_the_default_is_shown_as_without_limits() -> None:
    """Limits change neither default texts nor metavars."""
    (each,) = describe(options(Duration, Duration(90), gt=0))
    assert (each.default_text, each.metavar) == ("1m30s", "DURATION")


@given(st.integers(-(2**63), 2**63 - 1), st.integers(), st.integers())
def test_limits_are_those_of_arithmetic(number: int, low: int, high: int) -> None:
    """A number is accepted if and only if it is within the limits."""
    made = options(int, ge=low, lt=high)
    try:
        assert build(made, Given(flags={"value": str(number)})).value == number
        taken = True
    except UsageError:
        taken = False
    assert taken == (low <= number < high)
