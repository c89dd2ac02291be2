"""The events of a daemon: how they are kept in a file, and read again."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.control.records import EventReader
from tamed.errors import MissingInput
from tamed.ipc.message import InvalidMessage
from tamed.supervisor.records import EventLog
from tamed.supervisor.reports import read_events


def test_an_event_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    """Its facts come with it, but those that are unknown."""
    path = tmp_path / "app.log.events"
    events = EventLog(clock=lambda: 0.0)
    assert events.open(str(path)) == ""
    events.add("death", "worker 7 was ended by SIGKILL", worker=1, memory=None)
    with closing(EventReader(path, None)) as reader:
        (event,) = reader.last(10)
        assert (event["event"], event["text"]) == ("death", "worker 7 was ended by SIGKILL")
        assert event["worker"] == 1
        assert "memory" not in event
        events.add("restart", "worker 8 is started")
        assert [each["event"] for each in reader.more()] == ["restart"]
    events.close()


def test_the_files_are_bounded(tmp_path: Path) -> None:
    """One old file is kept, and the oldest events go."""
    path = tmp_path / "app.log.events"
    events = EventLog()
    events.open(str(path))
    for number in range(400):
        events.add("death", f"{number}", lines=["x" * 4000])
    events.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["app.log.events", "app.log.events.1"]
    assert sum(file.stat().st_size for file in files) < 1_100_000
    with closing(EventReader(path, None)) as reader:
        assert reader.last(1)[0]["text"] == "399"


def test_an_event_that_is_too_long_loses_its_facts(tmp_path: Path) -> None:
    """Its text is shortened too, and it is still an event."""
    path = tmp_path / "app.log.events"
    events = EventLog()
    events.open(str(path))
    events.add("death", "x" * 100_000, lines=["y" * 100_000])
    events.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line).keys() == {"time", "event", "text"}
    assert len(line) < 10_000


def test_events_that_cannot_be_kept_stay_in_memory(tmp_path: Path) -> None:
    """The reason is returned, and nothing is raised."""
    events = EventLog()
    assert "events are not recorded" in events.open(str(tmp_path / "none" / "app.log.events"))
    events.add("stop", "asked to stop")
    assert [each["text"] for each in events.recent] == ["asked to stop"]


def test_a_temporary_file_is_removed_unless_the_daemon_has_failed(tmp_path: Path) -> None:
    """A daemon without a log file keeps its events in the run directory."""
    path = tmp_path / "app.events"
    events = EventLog()
    events.open(str(path), is_temporary=True)
    assert path.exists()
    events.close()
    assert not path.exists()
    events.open(str(path), is_temporary=True)
    events.keep()
    events.close()
    assert path.exists()


def test_the_last_events_are_handed_on() -> None:
    """The next program goes on with them."""
    events, following = EventLog(), EventLog()
    events.add("upgrade", "tamed 2 takes over")
    following.resume(json.loads(json.dumps(events.export())))
    assert following.recent == events.recent


@given(st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode))))
def test_what_is_no_event_is_left_out(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """The daemon's user can write anything into the file."""
    path = tmp_path_factory.mktemp("events") / "app.log.events"
    good = b'{"time": "2026", "event": "stop", "text": "last"}'
    path.write_bytes(b"\n".join([*lines, b'{"event": 1}', b"[" * 200, good]))
    with closing(EventReader(path, None)) as reader:
        assert reader.last(1000)[-1]["text"] == "last"


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """The error has the path."""
    with pytest.raises(MissingInput, match=r"app\.log\.events"):
        EventReader(tmp_path / "app.log.events", None)


@pytest.mark.parametrize("value", [None, {}, [1], [{"time": "2026", "event": "stop"}]], ids=str)
def test_events_in_a_status_are_validated(value: object) -> None:
    """A wrong type is an error."""
    with pytest.raises(InvalidMessage):
        read_events({"events": value}, "events")
