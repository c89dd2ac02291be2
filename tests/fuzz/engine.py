"""What a target promises, and the engine that looks for an input with which it does not keep that.

A target takes bytes as an outsider may send them. It promises that

- it returns, or raises one of the exceptions that it names, and its own assertions hold;
- an input takes no longer than a tenth of a second, and one that is four times as long not ten times as long;
- it takes no more memory than some multiple of the input, and keeps none of it.
"""

import os
import signal
import time
import traceback
import tracemalloc
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from tests.fuzz.mutator import Mutator, pumped

__all__ = ["Finding", "Found", "Target", "check", "fuzz"]

_BATCH: Final = 64
_SLOW: Final = 0.1
"""Seconds of CPU for an ordinary input, which has 4 KiB at most."""

_HANG: Final = 60.0
"""Seconds for a batch, on the clock: what takes longer hangs."""

_SHORT: Final = 16 * 1024
_STEEP: Final = 10.0
"""How many times as long an input may take that is four times as long: 4 is linear, 16 quadratic."""

_UNREMARKABLE: Final = 0.03
"""Seconds below which nobody cares how it grows."""

_MEMORY: Final = (64, 4 << 20)
"""Bytes that an input may take: so many for each of its own, and so many anyway."""

_LEAK: Final = 64 << 20
_PUMPS_EVERY: Final = 4096


class Target(NamedTuple):
    """Something that takes bytes of outsiders.

    ``take`` may return a text that says how it went, so that inputs that lead to something new are found.
    It raises nothing but ``expected``. ``weight`` is how much of the time it gets, and ``grows`` whether
    inputs of many kilobytes are meant for it.
    """

    name: str
    take: Callable[[bytes], object]
    corpus: Sequence[bytes]
    words: Sequence[bytes] = ()
    expected: tuple[type[Exception], ...] = ()
    weight: float = 1.0
    grows: bool = True


class Found(NamedTuple):
    """An input with which a target did not keep its promise."""

    target: str
    why: str
    data: bytes


class Finding(NamedTuple):
    """What a run of one target has come to."""

    target: str
    inputs: int
    seconds: float
    kinds: int
    found: list[Found]


class _Hang(BaseException):
    """It took far too long."""


def fuzz(target: Target, seed: int, seconds: float, most_found: int = 5) -> Finding:
    """Try a target for a while."""
    run = _Run(target, seed)
    begun = time.monotonic()
    before = _resident()
    handler = signal.signal(signal.SIGALRM, _hang)
    try:
        while time.monotonic() < begun + seconds and len(run.found) < most_found:
            run.batch()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    if _resident() > before + _LEAK:
        run.found.append(Found(target.name, f"it has kept {_resident() - before} bytes", b""))
    return Finding(target.name, run.inputs, time.monotonic() - begun, len(run.kinds), run.found)


def check(target: Target, data: bytes) -> str:
    """Give a target one input; return what was wrong with that, or nothing."""
    begun = time.thread_time()
    try:
        target.take(data)
    except target.expected:
        pass
    except Exception:
        return traceback.format_exc()
    seconds = time.thread_time() - begun
    return f"it took {seconds:.2f} s" if seconds > _SLOW * max(1.0, len(data) / 4096) else ""


class _Run:
    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._mutator = Mutator(f"{seed}/{target.name}", target.corpus, target.words)
        self._random = Random(f"{seed}/{target.name}/pumps")
        self.inputs = 0
        self.kinds: set[object] = set()
        self.found: list[Found] = []
        self._reasons: set[str] = set()
        self._latest = b""
        for data in target.corpus:
            self._judge(data)

    def batch(self) -> None:
        """Try some inputs."""
        signal.setitimer(signal.ITIMER_REAL, _HANG)
        try:
            for _ in range(_BATCH):
                self._try(self._mutator.next())
            self.inputs += _BATCH
            if self._target.grows and self.inputs % _PUMPS_EVERY == 0:
                self._pump()
        except _Hang:
            self._report("it hangs", self._latest)

    def _try(self, data: bytes) -> None:
        self._latest = data
        begun = time.perf_counter()
        try:
            kind: object = self._target.take(data)
        except self._target.expected as error:
            told = str(error)
            kind = type(error), told[:6], told[-6:]
        except Exception:
            self._judge(data)
            return
        if time.perf_counter() - begun > _SLOW:
            self._judge(data)
        if kind not in self.kinds and len(self.kinds) < 10_000:
            self.kinds.add(kind)
            self._mutator.keep(data)

    def _judge(self, data: bytes) -> None:
        """Look at an input again, twice if it was slow: the machine may have been busy."""
        why = check(self._target, data)
        if why.startswith("it took "):
            why = check(self._target, data)
        if why:
            self._report(why, data)

    def _report(self, why: str, data: bytes) -> None:
        reason = why.strip().rpartition("\n")[2][:80]
        if reason not in self._reasons:  # one input for each fault is enough
            self._reasons.add(reason)
            self.found.append(Found(self._target.name, why, data))

    def _pump(self) -> None:
        """Have an input grow, and see whether time and memory grow faster."""
        data = self._mutator.next()[:256]
        at, size = self._random.randrange(len(data) + 1), self._random.choice((1, 2, 3, 8, 32))
        short, long = (pumped(data, at, size, length) for length in (_SHORT, 4 * _SHORT))
        self._latest = long
        if self._seconds(long) > _UNREMARKABLE:
            times = [min(self._seconds(each) for _ in range(3)) for each in (short, long)]
            if times[1] > max(_STEEP * times[0], _UNREMARKABLE):
                why = f"it took {times[1]:.3f} s, and a quarter of it {times[0]:.3f} s"
                self._report(why, long)
        tracemalloc.start()
        try:
            self._seconds(long)
            used = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if used > _MEMORY[0] * len(long) + _MEMORY[1]:
            self._report(f"it took {used} bytes of memory", long)

    def _seconds(self, data: bytes) -> float:
        begun = time.thread_time()
        try:
            self._target.take(data)
        except self._target.expected:
            pass
        except Exception:
            self._report(traceback.format_exc(), data)
        return time.thread_time() - begun


def _hang(*_: Any) -> None:
    raise _Hang


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - it is asked for between inputs
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
