import json
import logging
import time
from collections.abc import Iterator

import pytest

from tamed.log.layout import Line, lay_out, layout_of

MOMENT = 1795429865.1234  # 2026-11-23 10:31:05 UTC


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in a zone that is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def line(level: str = "INFO", message: str = "message", traceback: str = "") -> Line:
    """Return a line of the log."""
    return Line(MOMENT, level, "fastpoetry", message, 123, traceback)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("human", "11:31:05 INFO     fastpoetry: message"),
        ("coloured", "11:31:05 INFO     fastpoetry: message"),
        ("plain", "2026-11-23T11:31:05.123+01:00 INFO fastpoetry: message"),
        ("bare", "message"),
    ],
)
def test_a_line_has_time_level_logger_and_message(name: str, text: str) -> None:
    """The fields are in the order of the layout, with the local time."""
    indent = "" if name == "bare" else "    "
    assert layout_of(name)(line()) == text
    assert (
        layout_of(name)(line(traceback="Traceback\n  more")) == f"{text}\n{indent}Traceback\n{indent}  more"
    )


@pytest.mark.parametrize("level", ["DEBUG", "WARNING", "ERROR", "CRITICAL"])
def test_colour_tells_the_level(level: str) -> None:
    """The whole line is coloured, and the text after it is not."""
    text = layout_of("coloured")(line(level))
    assert text.startswith("\x1b[")
    assert text.endswith("\x1b[0m")
    assert layout_of("human")(line(level)) in text


def test_json_is_one_line_whatever_is_in_the_message() -> None:
    """The line can be parsed again."""
    text = layout_of("json")(line(message='a "b"\n\x00é', traceback="Traceback\n  more"))
    assert "\n" not in text
    assert json.loads(text) == {
        "time": "2026-11-23T11:31:05.123+01:00",
        "level": "INFO",
        "logger": "fastpoetry",
        "message": 'a "b"\n\x00é',
        "pid": 123,
        "traceback": "Traceback\n  more",
    }


def test_times_are_those_of_the_standard_library() -> None:
    """Times match to the millisecond, at any time of the year."""
    for moment in (0.0, MOMENT, MOMENT + 0.9996, MOMENT + 180 * 86400, 1e9 + 0.0005):
        text = layout_of("plain")(Line(moment, "INFO", "a", "b"))
        record = logging.makeLogRecord({"created": round(moment * 1000) / 1000})
        expected = logging.Formatter(datefmt="%Y-%m-%dT%H:%M:%S").formatTime(record, "%Y-%m-%dT%H:%M:%S")
        assert text.startswith(expected)
        assert text[19:23] == f".{round(moment * 1000) % 1000:03}"


def test_a_time_is_in_the_zone_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of a process may change while it has the text of the last second."""
    assert layout_of("plain")(line()).startswith("2026-11-23T11:31:05.123+01:00 ")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert layout_of("plain")(line()).startswith("2026-11-23T10:31:05.123+00:00 ")


@pytest.mark.parametrize("name", ["human", "coloured", "plain", "json", "bare"])
@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_many_lines_look_as_each_alone(name: str, level: str) -> None:
    """A batch has the same layout as single lines, for any messages."""
    layout, line = layout_of(name), Line(1e9, level, "verse", "", 42)
    messages = ["busy", "100 %", "two\nlines", 'quoted "sun"', "\0\ufffc", "", "\x1b[2J", "\x9b"]
    alone = [layout(line._replace(message=message)) for message in messages]
    assert lay_out(layout, line, messages) == alone


@pytest.mark.parametrize("name", ["human", "plain", "bare"])
def test_no_message_acts_on_a_terminal_or_poses_as_a_record(name: str) -> None:
    """Escapes are written as text, and continuation lines are indented, for texts of any source."""
    forged = "2026-11-23T11:31:05.123+01:00 ERROR tamed: forged"
    told = Line(MOMENT, "INFO", f"x\n{forged}", f"\x1b[2J\n{forged}", 1, f"\x07\n{forged}")
    text = layout_of(name)(told)
    assert "\x1b" not in text
    assert "\x07" not in text
    if name != "bare":
        assert all(each.startswith("    ") for each in text.splitlines()[1:])
