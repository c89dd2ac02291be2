"""The model of what may be expected: the one place that decides what is a violation.

Whoever does something to the daemon says so first, as a span of time: a worker that may die, no service, a
fault. What a client, a command or the log then shows is right, or explained by a span, or a violation. The
explanations are narrow: a connection that was let in may fail only if the very worker that let it in was to
die, and may be refused only while there was no daemon, or no socket file, to accept it.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Call", "Referee", "Span"]

_SLACK = 0.1  # seconds after the end of a span in which its end may not have shown yet
_AFTERMATH = 5.0  # seconds after a fault in which a command may still find something missing
_EACH_SHOWN = 3  # of violations that differ in numbers alone


class Span:
    """A time in which something was wrong on purpose. It lasts until `close` is called."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.begun = time.monotonic()
        self.ended = float("inf")

    def close(self, slack: float = _SLACK) -> None:
        """End it, in a moment."""
        self.ended = time.monotonic() + slack

    def overlaps(self, begun: float, ended: float) -> bool:
        """Tell whether it has a time in common with another."""
        return self.begun <= ended and begun <= self.ended


class Call:
    """A connection, or a request on one, as its client saw it; ``judge`` is called when it has ended.

    ``connected`` is when its connection began, and ``worker`` the process that served it, 0 if none has said
    so. ``line`` is the name and number of the line of the log that was written before the client heard of it.
    """

    def __init__(self, kind: str, begun: float, judge: "Callable[[Call], None]") -> None:
        self.kind = kind
        self.begun = self.connected = begun
        self.ended = 0.0
        self.outcome = ""
        self.detail = ""
        self.is_connected = False
        self.worker = 0
        self.version = 0
        self.line = "", 0
        self._judge = judge

    def greeted(self, line: bytes) -> None:
        """Take what the server said about itself."""
        try:
            pid, version, name, number = line.decode().split()
            self.worker, self.version, self.line = int(pid), int(version), (name, int(number))
        except ValueError:
            self.end("wrong", repr(line))

    def end(self, outcome: str, detail: str = "") -> None:
        """Say what became of it; only the first word counts."""
        if not self.outcome:
            self.outcome, self.detail, self.ended = outcome, detail, time.monotonic()
            self._judge(self)

    def next(self) -> "Call":
        """Return the next request on the same connection."""
        following = Call(self.kind, time.monotonic(), self._judge)
        following.is_connected, following.worker = True, self.worker
        following.connected = self.connected
        return following

    def __str__(self) -> str:
        served = f" by worker {self.worker}" if self.worker else ""
        took = f"{self.ended - self.begun:.2f} s"
        return f"{self.kind} connection {self.outcome}{served} after {took}: {self.detail}"


class Referee:
    """Judges. ``figures`` counts what there was, ``violations`` says what must not have been.

    ``course`` is all that was done and found, in its order. ``greeted`` are the workers that clients have
    met, ``noted`` the last lines that they have heard of, ``processes`` all that were looked at.
    """

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.figures: Counter[str] = Counter()
        self.violations: list[str] = []
        self.course: list[str] = []
        self._kinds: Counter[str] = Counter()
        self.greeted: set[int] = set()
        self.processes: set[int] = set()
        self.noted: dict[str, int] = {}
        self._at_risk: dict[int, list[Span]] = defaultdict(list)
        self._outages: list[Span] = []
        self._stops: list[Span] = []
        self._gone: dict[str, list[Span]] = defaultdict(list)
        self._faults: list[Span] = []
        self._late: set[int] = set()
        self._versions: list[tuple[float, frozenset[int]]] = []

    def note(self, text: str) -> None:
        """Write down what happens, for whoever looks for the cause of a violation."""
        self.course.append(f"{time.monotonic() - self.begun:7.2f} s  {text}")

    def violation(self, text: str) -> None:
        """Take note of what must not be."""
        self.figures["violations"] += 1
        self.note(f"VIOLATION {text}")
        kind = re.sub(r"\d+", "N", text)
        self._kinds[kind] += 1
        if self._kinds[kind] <= _EACH_SHOWN:
            self.violations.append(self.course[-1])

    def expect(self, holds: bool, text: str) -> None:
        """Take note if something does not hold."""
        if not holds:
            self.violation(text)

    # What is done to the daemon.

    @contextmanager
    def fault(self, why: str) -> Iterator[Span]:
        """Something is wrong: commands may fail, and say why."""
        self.note(f"fault: {why}")
        span = Span(why)
        self._faults.append(span)
        try:
            yield span
        finally:
            span.close(_AFTERMATH)

    def may_be_late(self, pid: int) -> None:
        """A process may hear late that others are to take its place, and serve on until it does."""
        self._late.add(pid)

    @contextmanager
    def risk(self, pid: int, why: str, slack: float = _SLACK) -> Iterator[None]:
        """A process may die, and what it has let in with it."""
        span = Span(why)
        self._at_risk[pid].append(span)
        try:
            yield
        finally:
            span.close(slack)

    @contextmanager
    def outage(self, why: str, *, is_orderly: bool = False) -> Iterator[None]:
        """There is no daemon. One that stops as asked refuses clients; one that is killed also drops them."""
        span = Span(why)
        (self._stops if is_orderly else self._outages).append(span)
        try:
            yield
        finally:
            span.close()

    @contextmanager
    def unreachable(self, kind: str, why: str) -> Iterator[None]:
        """Clients of one kind find no socket, or nobody who serves them."""
        span = Span(why)
        self._gone[kind].append(span)
        try:
            yield
        finally:
            span.close()

    def allow_version(self, version: int) -> None:
        """Clients that come from now on may be served by this version of the code, and by no other."""
        self._versions.append((time.monotonic(), frozenset([version])))

    def allow_another_version(self, version: int) -> None:
        """They may be served by this one too."""
        self._versions.append((time.monotonic(), self._versions[-1][1] | {version}))

    def is_disturbed(self, begun: float) -> bool:
        """Tell whether anything was wrong since then, which explains that a command failed."""
        now = time.monotonic()
        return any(span.overlaps(begun, now) for span in (*self._faults, *self._outages))

    def had_fault(self, why: str, begun: float) -> bool:
        """Tell whether this was wrong at any time since then."""
        return any(span.why == why and span.overlaps(begun, time.monotonic()) for span in self._faults)

    # What comes of it.

    def judge(self, call: Call) -> None:
        """Judge a connection or request that has ended."""
        if call.line[1]:
            self.greeted.add(call.worker)
            name, number = call.line
            self.noted[name] = max(number, self.noted.get(name, 0))
        if call.outcome == "served":
            self.figures[f"{call.kind} served"] += 1
            self._judge_version(call)
        elif call.outcome == "sent again":
            self.figures["http requests sent again"] += 1
        elif why := self._explanation(call):
            self.figures[f"{call.kind} {call.outcome}, explained"] += 1
            self.figures[f"explained by: {why}"] += 1
        else:
            self.violation(str(call))

    def _explanation(self, call: Call) -> str:
        """Return what explains that a call failed; empty if nothing does."""
        spans: list[Span] = []
        if call.outcome == "refused":
            spans = [*self._outages, *self._stops, *self._gone[call.kind]]
        elif call.outcome == "broken" and call.worker:
            spans = self._at_risk[call.worker]
        elif call.outcome == "broken":
            # Nobody has said who let it in, so it may have been any that was to die; or nobody had, and what
            # waited in the queue has gone with the last of those that listened.
            spans = [*self._outages, *(span for spans in self._at_risk.values() for span in spans)]
            spans += self._gone[call.kind]
            # A stop leaves nobody in the queue of a TCP socket, as long as there is a worker to serve it.
            is_served = not any(span.overlaps(call.begun, call.ended) for span in self._faults)
            spans += [] if is_served and call.kind != "unix" else self._stops
        return next((span.why for span in spans if span.overlaps(call.begun, call.ended)), "")

    def _judge_version(self, call: Call) -> None:
        allowed: frozenset[int] = frozenset()
        for since, versions in self._versions:
            if since <= call.connected:
                allowed = versions
            elif since <= call.ended:
                allowed |= versions
        if call.version not in allowed and call.worker not in self._late:
            self.violation(f"{call.kind}: version {call.version} serves, where only {sorted(allowed)} may")
