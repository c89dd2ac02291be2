"""The last records of the log, as the supervisor keeps them for the operations process."""

from tamed.log.record import Record, encode_origin
from tamed.supervisor.intake import LogTail
from tamed.supervisor.records import EventLog


def record(text: str, severity: int = 6) -> Record:
    """Return a record of the logger `verse`."""
    return Record(encode_origin(severity, 1.5, 7, "verse"), text.encode())


def test_records_are_returned_once() -> None:
    """A read returns the records after those counted before, with their origin."""
    tail = LogTail()
    tail.add([record("first"), record("second", 3)], 2)
    assert [each["text"] for each in tail.since(0)] == ["first", "second"]
    tail.add([record("third")], None)
    assert tail.since(1)[0] == {"time": 1.5, "severity": 3, "logger": "verse", "worker": 2, "text": "second"}
    assert [each["worker"] for each in tail.since(2)] == [None]
    assert tail.since(tail.count) == []


def test_what_is_kept_is_bounded() -> None:
    """In records, in bytes, and in the length of each; a traceback keeps its end."""
    tail = LogTail()
    for number in range(1000):
        tail.add([record(f"{number}")], 1)
    assert [each["text"] for each in tail.since(0)] == [str(number) for number in range(700, 1000)]
    for number in range(200):
        tail.add([record(f"{number} {'x' * 100_000} the error")], 1)
    found = tail.since(0)
    assert 50 < len(found) < 100
    assert all(len(each["text"]) <= 4096 for each in found)
    assert found[-1]["text"].startswith("199 xxx")
    assert found[-1]["text"].endswith("xx the error")


def test_events_are_returned_once() -> None:
    """Those after the ones that were counted before, of the last fifty."""
    events = EventLog(lambda: 0.0)
    for number in range(60):
        events.add("stop", str(number))
    assert [each["text"] for each in events.since(57)] == ["57", "58", "59"]
    assert len(events.since(0)) == 50
    following = EventLog(lambda: 0.0)
    following.resume(events.export())
    assert [each["text"] for each in following.since(following.count - 1)] == ["59"]
