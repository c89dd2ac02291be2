"""``python -m tests.fuzz``: give the parsers that outsiders reach millions of inputs, and print the figures.

The exit status is 1 if a target did not keep its promise; each such input is printed with how to repeat it.
Where atheris is installed, each target is also given the inputs that it makes, which are guided by coverage.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Final, NamedTuple

from tests.fuzz import guided
from tests.fuzz.engine import Finding, Found, Target, check, fuzz
from tests.fuzz.targets import target_named, targets

ROOT: Final = Path(__file__).parents[2]
_GUIDED: Final = 0.3
"""Which part of the time is atheris'; what it instruments runs several times slower."""

_STARTS: Final = {"mutator": 1.0, "atheris": 5.0}
"""Seconds that a process of a target takes before its first input; atheris instruments what it imports."""

_PATIENCE: Final = 300.0
"""Seconds beyond its time after which a process hangs."""


class _Job(NamedTuple):
    target: Target
    engine: str
    seconds: float


def main(words: Sequence[str]) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long, about (default: 300)")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the choices")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="how many processes at a time"
    )
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--input", type=bytes.fromhex, help="give --target this input alone, in hexadecimal digits"
    )
    parser.add_argument(
        "--engine", choices=("both", "mutator", "atheris"), default="both", help="who makes the inputs"
    )
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    chosen = [target_named(name) for name in options.target] if options.target else list(targets())
    if options.input is not None:
        return _repeat(chosen, options.input)
    if options.part:
        return _part(chosen[0], options.engine, options.seed, options.seconds)
    jobs = _jobs(chosen, options.engine, options.seconds * options.jobs)
    print(
        f"fuzzing for {options.seconds:g} seconds with seed {options.seed}, {options.jobs} at a time",
        flush=True,
    )
    with ThreadPoolExecutor(options.jobs) as pool:
        findings = list(pool.map(lambda job: _in_process(job, options.seed), jobs))
    return _report(jobs, findings)


def _jobs(chosen: Sequence[Target], engine: str, seconds: float) -> list[_Job]:
    """Share the seconds of all processes out; the longest first."""
    parts = {"mutator": 1.0, "atheris": 0.0}
    if engine != "mutator" and importlib.util.find_spec("atheris") is not None:
        part = 1.0 if engine == "atheris" else _GUIDED
        parts = {"mutator": 1.0 - part, "atheris": part}
    elif engine != "mutator":
        print("atheris is not installed: nothing is guided by coverage", flush=True)
    starts = len(chosen) * sum(_STARTS[each] for each, part in parts.items() if part)
    left = max(seconds - starts, 0.2 * seconds)
    weights = sum(target.weight for target in chosen)
    jobs = [
        _Job(target, each, left * part * target.weight / weights)
        for each, part in parts.items()
        for target in chosen
        if part
    ]
    return sorted(jobs, key=lambda job: -job.seconds)


def _in_process(job: _Job, seed: int) -> Finding:
    """Fuzz a target in a process of its own, which may crash."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--part",
        "--target",
        job.target.name,
        "--engine",
        job.engine,
    ]
    command += ["--seconds", f"{job.seconds:.2f}", "--seed", str(seed)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=job.seconds + _PATIENCE
        )
    except subprocess.TimeoutExpired:
        return Finding(job.target.name, 0, job.seconds, 0, [Found(job.target.name, "it does not end", b"")])
    line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not line.startswith("{"):
        told = f"the process ended with status {done.returncode}: {done.stderr[-2000:]}"
        return Finding(job.target.name, 0, job.seconds, 0, [Found(job.target.name, told, b"")])
    data = json.loads(line)
    found = [Found(job.target.name, each["why"], bytes.fromhex(each["data"])) for each in data.pop("found")]
    return Finding(**data, found=found)


def _part(target: Target, engine: str, seed: int, seconds: float) -> int:
    """Fuzz a target in this process, and print what has come of it as JSON."""
    if engine == "atheris":
        with tempfile.TemporaryDirectory(prefix="tamed-fuzz-") as folder:
            finding = guided.fuzz(target, seed, seconds, Path(folder))
    else:
        finding = fuzz(target, seed, seconds)
    found = [{"why": each.why, "data": each.data.hex()} for each in finding.found]
    print(json.dumps({**finding._asdict(), "found": found}))
    return 0


def _repeat(chosen: Sequence[Target], data: bytes) -> int:
    told = [(target.name, check(target, data)) for target in chosen]
    for name, why in told:
        print(f"{name}: {why or 'as it should be'}")
    return int(any(why for _, why in told))


def _report(jobs: Sequence[_Job], findings: Sequence[Finding]) -> int:
    print(f"{'target':20} {'made by':8} {'inputs':>12} {'a second':>10} {'kinds':>6}  found")
    for job, each in sorted(
        zip(jobs, findings, strict=True), key=lambda pair: (pair[0].engine, pair[0].target.name)
    ):
        rate = each.inputs / max(each.seconds, 0.001)
        made = f"{each.target:20} {job.engine:8} {each.inputs:12,} {rate:10,.0f}"
        print(f"{made} {each.kinds:6}  {len(each.found)}")
    found = [one for each in findings for one in each.found]
    for one in found:
        print(f"\n{one.target}: {one.why.rstrip()}")
        print(f"again: .venv/bin/python -m tests.fuzz --target {one.target!r} --input {one.data.hex()}")
    count = len({job.target.name for job in jobs})
    total = sum(each.inputs for each in findings)
    print(f"{total:,} inputs to {count} targets, {len(found) or 'nothing'} found")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
