"""What the holders did, in the order in which a store would have seen it, and the time without any."""

from pathlib import Path
from statistics import median
from typing import NamedTuple


class Action(NamedTuple):
    """An action of a holder; ``time`` is of CLOCK_BOOTTIME, and the same clock for all machines here."""

    token: int
    host: str
    pid: int
    time: float


class Referee:
    """Reads all actions; ``stale`` are those that carry an older token than one before."""

    def __init__(self, path: Path) -> None:
        self._file = path.open()
        self._rest = ""
        self.count = 0
        self.last: Action | None = None
        self.tokens: list[int] = []
        self.stale: list[Action] = []
        self.gaps: dict[str, list[float]] = {}
        self._widest = 0.0

    def read(self) -> None:
        """Read what is new."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            token, host, pid, time = line.split()
            self._judge(Action(int(token), host, int(pid), float(time)))

    def has_seen_more(self) -> bool:
        """Read what is new, and return whether that is anything."""
        count = self.count
        self.read()
        return self.count > count

    def _judge(self, action: Action) -> None:
        self.count += 1
        if self.last is not None:
            self._widest = max(self._widest, action.time - self.last.time)
        if self.tokens and action.token < self.tokens[-1]:
            self.stale.append(action)
            return
        if not self.tokens or action.token > self.tokens[-1]:
            self.tokens.append(action.token)
        self.last = action

    def began(self) -> None:
        """Measure from now on how long nobody acts."""
        self.read()
        self._widest = 0.0

    def ended(self, fault: str) -> None:
        """Keep the longest time in which nobody acted since `began`, as that of a fault."""
        self.read()
        self.gaps.setdefault(fault, []).append(self._widest)

    def table(self) -> list[str]:
        """Return the times without a holder as lines: how often, median and worst for each fault."""
        lines = []
        for fault, gaps in sorted(self.gaps.items()):
            lines.append(f"{fault:56} {len(gaps):4} {median(gaps):8.2f} s {max(gaps):8.2f} s")
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()
