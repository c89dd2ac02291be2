"""Inputs that atheris makes, which is libFuzzer for Python: it keeps those that reach new code.

It is no dependency of the project: `make fuzz` installs it beside, where there is one for this Python.
"""

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.fuzz.engine import Finding, Found, Target

__all__ = ["fuzz"]

_LONGEST: Final = 4096
_PATIENCE: Final = 120.0
_DONE: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_NEW: Final = re.compile(r"stat::new_units_added:\s+(\d+)")
_RUN: Final = "from tests.fuzz.guided import run; run()"


def fuzz(target: Target, seed: int, seconds: float, folder: Path) -> Finding:
    """Have atheris try a target for a while, in a process that it ends by itself."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.corpus):
        (corpus / str(number)).write_bytes(data)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))
    command = [sys.executable, "-c", _RUN, target.name, f"-dict={words}", f"-artifact_prefix={folder}/"]
    command += [
        f"-seed={seed % 2**31 or 1}",
        f"-max_total_time={max(round(seconds), 1)}",
        f"-max_len={_LONGEST}",
    ]
    command += ["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0", str(corpus)]
    begun = time.monotonic()
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        timeout=seconds + _PATIENCE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    told = (done.stdout + done.stderr).decode(errors="replace")
    found = [
        Found(target.name, told[-2000:], each.read_bytes())
        for pattern in ("crash-*", "timeout-*", "oom-*")
        for each in folder.glob(pattern)
    ]
    if done.returncode and not found:
        found.append(Found(target.name, f"atheris ended with status {done.returncode}: {told[-2000:]}", b""))
    numbers = [int(match[1]) if (match := pattern.search(told)) else 0 for pattern in (_DONE, _NEW)]
    return Finding(target.name, numbers[0], time.monotonic() - begun, numbers[1], found)


def run() -> None:
    """Be the process of atheris: ``NAME OPTIONS``."""
    atheris = importlib.import_module("atheris")  # it has no types, and need not be there
    with atheris.instrument_imports(include=["tamed"]):
        from tests.fuzz.targets import target_named
    name = sys.argv.pop(1)
    target = target_named(name)

    def take(data: bytes) -> Any:
        try:
            target.take(data)
        except target.expected:
            return

    atheris.Setup(sys.argv, take)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
