"""The load generator: what clients see of a server under load, every failure counted.

``load.c`` does the work and says in its head what is counted; here it is built and run::

    result = Load(("127.0.0.1", 10000), expect=[poem], connections=100_000).run()

    with Load("/run/poetry.sock", expect=[poem]).start() as running:
        ...  # something that clients should not notice
    assert running.result.failures == 0
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Load", "Result", "Running", "build"]

_SOURCE = Path(__file__).with_name("load.c")
_BUILD = Path(__file__).parents[2] / "build" / "bench"


def build() -> Path:
    """Return the program, and compile it first if there is none of this source.

    Several processes may ask at the same time. Raises OSError where there is no compiler.
    """
    program = _BUILD / f"load-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        _BUILD.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", fresh, _SOURCE], check=True)
        fresh.rename(program)
    return program


@dataclass(frozen=True)
class Result:
    """What a load came to; ``load.c`` says what each count and time means. Times are in seconds."""

    begun: int
    ok: int
    refused: int
    reset: int
    short: int
    wrong: int
    timeouts: int
    errors: int
    unfinished: int
    matched: Sequence[int]
    error: str
    seconds: float
    rate: float
    p50: float
    p90: float
    p99: float
    max: float
    late: int
    gap: float

    @property
    def failures(self) -> int:
        """How many connections failed, in whatever way; those that were open at the end are none of them."""
        return self.refused + self.reset + self.short + self.wrong + self.timeouts + self.errors


@dataclass(frozen=True)
class Load:
    """Connections to make, ``at_once`` of them at a time, to a TCP address or the path of a unix socket.

    ``expect`` are files: an answer is right if it is the same as one of them; with none, any is. The load
    ends after so many ``connections``, after so many ``seconds``, or when it is stopped, whichever is
    first; 0 is no limit. With ``rate``, connections begin at so many a second, however fast the answers
    come; otherwise one begins when another has ended. Each is given up after ``timeout`` seconds. ``send``
    is sent before anything is read. ``http`` says that the answers have a header, which is not compared.
    The clients have so many ``sources`` in 127.0.0.0/8; 0 leaves the address to the system. ``cpu`` is the
    core to run on.
    """

    target: tuple[str, int] | str | Path
    expect: Sequence[Path] = ()
    connections: int = 0
    seconds: float = 0
    at_once: int = 32
    rate: float = 0
    timeout: float = 60
    send: str = ""
    http: bool = False
    sources: int = 4096
    cpu: int | None = None

    def command(self) -> list[str]:
        """Return the command that makes this load."""
        pinned = [] if self.cpu is None else ["taskset", "-c", str(self.cpu)]
        options = [
            ("-n", self.connections),
            ("-d", self.seconds),
            ("-c", self.at_once),
            ("-r", self.rate),
            ("-t", self.timeout),
            ("-s", self.sources),
            *(("-e", body) for body in self.expect),
        ]
        words = [str(word) for option in options for word in option]
        more = [*(["-w", self.send] if self.send else []), *(["-H"] if self.http else [])]
        where = self.target if isinstance(self.target, tuple) else (self.target,)
        return [*pinned, str(build()), *words, *more, *map(str, where)]

    def start(self) -> "Running":
        """Begin, and do not wait for the end."""
        return Running(self)

    def run(self) -> Result:
        """Make the load to its end."""
        with Running(self) as running:
            return running.wait()


class Running:
    """A load that is under way. Leaving its ``with`` block stops it; ``result`` is there afterwards."""

    result: Result

    def __init__(self, load: Load) -> None:
        self.process = subprocess.Popen(load.command(), stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            if kind is None:
                self.stop()
            else:
                self.process.kill()
                self.process.communicate()

    def wait(self) -> Result:
        """Wait for the end that was given to it; raises CalledProcessError if it did not come to it."""
        out, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise subprocess.CalledProcessError(self.process.returncode, self.process.args)
        self.result = Result(**json.loads(out))
        return self.result

    def stop(self) -> Result:
        """End it at once."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()
