import json
import math
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.plugins.values import Duration, Size

MOST_SECONDS = 36500 * 86400

durations = st.floats(min_value=0, max_value=MOST_SECONDS).map(Duration)
sizes = st.integers(min_value=0, max_value=2**63 - 1).map(Size)
# Text near to what is accepted finds more than text from all of Unicode does.
almost_values = st.text(alphabet="0123456789.-+ _dhmskKMGTPiBbe\u0663\n", max_size=12) | st.text()


def value_or_refusal(kind: type[Duration | Size], text: str) -> Duration | Size | str:
    """Return the value of a text, or the message of its ValueError."""
    try:
        return kind(text)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172800),
        ("1.5h", 5400),
        ("90", 90),
        ("0.25", 0.25),
        ("1d2h3m4s5ms", 93784.005),
        (" 1h 30m ", 5400),
        ("0", 0),
        ("36500d", MOST_SECONDS),
    ],
)
def test_a_duration_is_the_seconds_that_its_text_says(text: str, seconds: float) -> None:
    """Every unit, decimals, spaces and a number alone are read as seconds."""
    assert Duration(text) == seconds
    assert Duration.parse(text) == Duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1",
        "-1s",
        "+1s",
        "1x",
        "1M",
        "1S",
        "30m1h",
        "1s1s",
        "1h30",
        "1,5s",
        "1e3",
        "nan",
        "inf",
        "36501d",
        "9" * 30,
        "1.s",
        ".5s",
        "1h 30 m 5",
        "\u0663s",
        "1" * 5000,
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The message shows the text and examples of durations."""
    with pytest.raises(ValueError, match=r"^expected a duration .* such as 30s, 5m, 1h30m or 500ms, got '"):
        Duration(text)


@pytest.mark.parametrize("number", [-1, -0.001, math.nan, math.inf, 1e300, 10**400])
def test_a_number_that_is_no_duration_is_refused(number: float) -> None:
    """A duration is finite, not negative, and at most a hundred years."""
    with pytest.raises(ValueError, match="expected a duration"):
        Duration(number)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-0.0, "0s"),
        (30, "30s"),
        (5400, "1h30m"),
        (0.5, "500ms"),
        (0.005, "5ms"),
        (1.5, "1.5s"),
        (90.25, "1m30.25s"),
        (86400, "1d"),
        (86401, "1d1s"),
        (0.0001, "0.0001s"),
        (1e-7, "0.0000001s"),
    ],
)
def test_a_duration_is_written_in_the_largest_units(seconds: float, text: str) -> None:
    """The text of a duration is canonical."""
    assert str(Duration(seconds)) == text
    assert f"{Duration(seconds)}" == text


@given(durations)
def test_the_text_of_a_duration_is_that_duration(duration: Duration) -> None:
    """The text of a duration is read as exactly the same number."""
    assert Duration(str(duration)) == duration


@given(st.integers(0, 10**9), st.integers(0, 999))
def test_the_text_of_milliseconds_is_as_exact_as_the_number(seconds: int, milliseconds: int) -> None:
    """Reading units is as exact as reading the whole number of seconds."""
    assert Duration(f"{seconds}s{milliseconds}ms") == float(f"{seconds}.{milliseconds:03}")


@given(almost_values)
def test_any_text_is_a_duration_or_a_sentence(text: str) -> None:
    """Only ValueError is raised, with the expected form on one short line."""
    read = value_or_refusal(Duration, text)
    if isinstance(read, str):
        assert re.fullmatch("expected a duration .{,400}", read)
    else:
        assert 0 <= read <= MOST_SECONDS


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1 MB", 1_000_000),
        ("512 KiB", 524_288),
        ("4096", 4096),
        ("4096 B", 4096),
        ("10kb", 10_000),
        ("10KB", 10_000),
        ("1.5 GiB", 1_610_612_736),
        ("0.5kB", 500),
        ("1TB", 10**12),
        ("1 PiB", 2**50),
        (" 2  MiB ", 2_097_152),
    ],
)
def test_a_size_is_the_bytes_that_its_text_says(text: str, count: int) -> None:
    """Decimal units are powers of 1000, binary ones of 1024; case and space do not matter."""
    assert Size(text) == count
    assert Size.parse(text) == Size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "-1",
        "10k",
        "10M",
        "1 XB",
        "1.5",
        "1.5 B",
        "0.3 KiB",
        "1 MB 2 kB",
        "1e6",
        "\u0663",
        "1" * 5000,
        "9223372036854775808",
        "8192 PiB",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Fractions of a byte and bare letters are refused, with an explanation of the units."""
    with pytest.raises(
        ValueError, match=r"^expected a size in whole bytes.* KiB \(of 1024\), 1 MB \(of 1000\)"
    ):
        Size(text)


def test_a_number_that_is_no_size_is_refused() -> None:
    """A size is not negative and less than 2**63."""
    with pytest.raises(ValueError, match="expected a size"):
        Size(-1)
    with pytest.raises(ValueError, match="expected a size"):
        Size(2**63)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1500, "1500 B"), (10**6, "1 MB"), (2**20, "1 MiB"), (1000, "1 kB"), (1536, "1536 B")],
)
def test_a_size_is_written_in_the_unit_that_makes_it_short(count: int, text: str) -> None:
    """The text of a size is canonical and exact."""
    assert str(Size(count)) == text


@given(sizes)
def test_the_text_of_a_size_is_that_size(size: Size) -> None:
    """The text of a size is read as exactly the same number."""
    assert Size(str(size)) == size


@given(almost_values)
def test_any_text_is_a_size_or_a_sentence(text: str) -> None:
    """Only ValueError is raised, with the expected form on one short line."""
    read = value_or_refusal(Size, text)
    if isinstance(read, str):
        assert re.fullmatch("expected a size .{,400}", read)
    else:
        assert 0 <= read < 2**63


@given(durations, sizes)
def test_values_are_the_numbers_they_stand_for(duration: Duration, size: Size) -> None:
    """They can be pickled, and JSON writes them as numbers."""
    assert pickle.loads(pickle.dumps((duration, size))) == (duration, size)
    assert json.loads(json.dumps([duration, size])) == [float(duration), int(size)]


def test_their_representation_makes_them_again() -> None:
    """The output of ``repr`` can be evaluated."""
    assert repr(Duration(5400)) == "Duration('1h30m')"
    assert repr(Size(10**6)) == "Size('1 MB')"
