"""What `tamed run fastpoetry` imports until it serves, and what each part costs: ``python -m bench.imports``.

The cost is in instructions, counted by callgrind: it is the same on a busy machine. The parts are imported in
this order, so that each has the cost that it adds to those before it. The bytecode must be compiled.
"""

import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.process import HOST, PYTHON, free_port

__all__ = ["parts_of"]

_RUN = (PYTHON, "-P", "-X", "importtime", "-m", "tamed", "run", "fastpoetry", "--port")
_LIBRARY = {
    "enum, re": ("enum", "functools", "contextlib", "re"),
    "typing": ("typing",),
    "pathlib": ("pathlib",),
    "inspect": ("inspect",),
    "dataclasses": ("dataclasses",),
    "socket, signal": ("socket", "selectors", "signal"),
    "logging": ("logging",),
    "ssl": ("ssl",),
    "asyncio": ("asyncio",),
    "uvloop": ("uvloop",),
}
_FOLDERS = (
    "_os",
    "log",
    "service",
    "unix",
    "plugins",
    "net",
    "config",
    "control",
    "worker",
    "cli",
    "builtin",
)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        run = (*_RUN[:2], *_RUN[4:])
        stop = _instructions((*run, str(port := free_port())), port, Path(folder), stop_only=True)
        whole = _instructions((*run, str(port := free_port())), port, Path(folder))
    print("| part | million instructions | of all |\n|---|---|---|")
    rest = whole
    for name, cost in _costs(parts_of(_loaded())):
        rest -= cost
        _print_row(name, cost, whole)
    _print_row("options, event loop, one poem, stop", rest, whole)
    _print_row("all", whole, whole)
    print(f"\nThe stop takes {stop / 1e6:.1f} of these.")


def _print_row(name: str, cost: int, whole: int) -> None:
    print(f"| {name} | {cost / 1e6:.1f} | {cost / whole:.1%} |", flush=True)


def parts_of(loaded: Sequence[str]) -> dict[str, list[str]]:
    """Return the modules of each part, in the order in which the parts are imported."""
    ours = [name for name in loaded if name.partition(".")[0] == "tamed"]
    listed = {module for modules in _LIBRARY.values() for module in modules}
    parts = {f"`{name}`": list(modules) for name, modules in _LIBRARY.items()}
    parts["the rest of the standard library"] = [name for name in loaded if name not in {*ours, *listed}]
    parts["`tamed.errors`, `tamed._version`"] = [name for name in ours if name.count(".") == 1]
    for folder in _FOLDERS:
        modules = [name for name in ours if name.startswith(f"tamed.{folder}.")]
        parts[f"`tamed.{folder}`: {len(modules)} modules"] = modules
    return parts


def _loaded() -> list[str]:
    """Return the modules that a run imports until it serves, in their order."""
    port = free_port()
    with subprocess.Popen([*_RUN, str(port)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        names = []
        for line in process.stderr:
            if found := re.match(r"import time: +\d+ \| +\d+ \| +(\S+)", line):
                names.append(found[1])
            elif "is ready" in line:
                process.send_signal(signal.SIGTERM)
    return [name for name in names if name != "tamed.__main__"]


def _costs(parts: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    names: list[str] = []
    before = 0
    for part, modules in [("the interpreter", list[str]()), *parts.items()]:
        names += modules
        # Some are tried only, and missing here: those of other systems.
        program = f"for name in {names}:\n try: __import__(name)\n except ImportError: pass"
        now = _instructions([PYTHON, "-P", "-c", program])
        yield part, now - before
        before = now


def _instructions(
    command: Sequence[str], port: int | None = None, folder: Path | None = None, *, stop_only: bool = False
) -> int:
    """Return the instructions of a command; with a port, of one that serves a poem there and is stopped.

    With ``stop_only``, those after the poem.
    """
    words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if port is not None and "is ready" in line:
                with socket.create_connection((HOST, port)) as client:
                    while client.recv(65536):
                        pass
                if stop_only:
                    subprocess.run(
                        ["callgrind_control", "-z", str(process.pid)], check=True, capture_output=True
                    )
                process.send_signal(signal.SIGTERM)
            if found := re.search(r"Collected : (\d+)", line):
                return int(found[1])
    raise AssertionError(f"{command} cannot be run under valgrind")


if __name__ == "__main__":
    main()
