"""An excerpt of the fuzzing, and what the engine sees of a target that does not keep its promise."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed.web._http1 import HttpConnection
from tamed.web._http2 import Http2Connection
from tamed.web._websocket import WebSocketConnection
from tests.fuzz.engine import Target, check, fuzz
from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import target_named, targets
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.mark.excerpt
@pytest.mark.unmeasured
@pytest.mark.parametrize("target", list(targets()), ids=lambda target: target.name)
def test_nothing_is_found_in_a_moment_of_fuzzing(target: Target) -> None:
    """What a target begins with is as it should be, and of some hundreds of inputs each keeps its promise."""
    assert [check(target, data) for data in target.corpus] == [""] * len(target.corpus)
    finding = fuzz(target, 1, 0.1)
    assert finding.found == []
    assert finding.inputs > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [("HTTP", HttpConnection), ("HTTP/2", Http2Connection), ("WebSocket", WebSocketConnection)],
)
def test_a_connection_that_is_lost_is_forgotten_at_once(name: str, kind: type) -> None:
    """No timer holds it, also if its application ends after it."""
    target = target_named(name)
    for data in target.corpus:
        target.take(data)
    gc.collect()
    assert [each for each in gc.get_objects() if type(each) is kind] == []


@pytest.mark.unmeasured
def test_each_target_has_a_process_of_its_own() -> None:
    """The command counts what they have done, and ends well if nothing was found."""
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "0.1", "--seed", "1", "--engine", "mutator"]
    command += [word for target in ("HTTP", "plan") for word in ("--target", target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "to 2 targets, nothing found" in done.stdout


def _raises(data: bytes) -> None:
    if b"]]" in data:
        raise KeyError("a fault")


def _is_slow(data: bytes) -> None:
    if data.startswith(b"slow"):
        begun = time.thread_time()
        while time.thread_time() < begun + 0.3:
            pass


def _is_quadratic(data: bytes) -> None:
    for at in range(0, len(data), 16):
        data[at:].count(b"x")


def _takes_memory(data: bytes) -> None:
    bytearray(len(data) * 500)


@pytest.mark.parametrize(
    ("take", "why"),
    [
        (_raises, "KeyError: 'a fault'"),
        (_is_slow, "it took 0."),
        (_is_quadratic, ", and a quarter of it "),
        (_takes_memory, " bytes of memory"),
    ],
)
def test_a_promise_that_is_not_kept_is_found(take: Callable[[bytes], None], why: str) -> None:
    """With the input, which does the same again."""
    target = Target("a fault", take, (b"[1, 2]",), (b"[", b"]", b"slow"))
    finding = fuzz(target, 1, PATIENCE, most_found=1)
    assert why in finding.found[0].why


def test_a_seed_gives_the_same_inputs() -> None:
    """And another one others."""
    target = target_named("HTTP")

    def made(seed: str) -> list[bytes]:
        mutator = Mutator(seed, target.corpus, target.words)
        return [mutator.next() for _ in range(500)]

    assert made("1") == made("1") != made("2")
