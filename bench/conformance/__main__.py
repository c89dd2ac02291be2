"""``python -m bench.conformance``: runs other servers' own tests with Tamed, and prints a table.

Their source distributions come from PyPI, in the version that is installed; nothing of them is kept.
"""

import os
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

_ROOT = Path(__file__).parents[2]
_BUILD = _ROOT / "build" / "conformance"
_REASONS = Path(__file__).with_name("reasons.toml")
_FILES = {
    "uvicorn": {
        "HTTP/1.1": "tests/protocols/test_http.py",
        "HTTP/2": "tests/protocols/test_http2.py",
        "WebSocket": "tests/protocols/test_websocket.py",
    },
    "hypercorn": {
        "requests and WebSockets": "tests/asyncio/test_sanity.py",
        "keep-alive": "tests/asyncio/test_keep_alive.py",
        "the end of the client": "tests/asyncio/test_tcp_server.py",
    },
}


class Case(NamedTuple):
    """One case that was run."""

    group: str
    name: str
    has_passed: bool


def main() -> None:
    """Run all, print the table, and exit with 1 if a case or a reason is not as it is expected."""
    wrong: list[str] = []
    print("| tests | of | cases | pass |\n|---|---|---|---|")
    why: list[str] = []
    for suite, reasons in tomllib.loads(_REASONS.read_text()).items():
        cases = list(_run(suite))
        for group in _FILES[suite]:
            results = [case.has_passed for case in cases if case.group == group]
            print(f"| {suite} {version(suite)} | {group} | {len(results)} | {sum(results)} |")
        why += _explained(suite, cases, reasons)
        wrong += _unexpected(cases, reasons)
    print("\n| cases | why they do not pass |\n|---|---|", *why, sep="\n")
    if wrong:
        print("", *wrong, sep="\n", file=sys.stderr)
        sys.exit(1)


def _run(suite: str) -> Iterable[Case]:
    source = _source_of(suite)
    report = _BUILD / f"{suite}.xml"
    report.unlink(missing_ok=True)
    plugin = f"bench.conformance.{suite}_tests"
    options = [
        "-q",
        "--tb=no",
        "--no-header",
        "-o",
        "addopts=",
        "-o",
        "faulthandler_timeout=0",
        "-W",
        "ignore",
    ]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            plugin,
            *options,
            f"--junitxml={report}",
            *_FILES[suite].values(),
        ],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    groups = {file.removesuffix(".py").replace("/", "."): group for group, file in _FILES[suite].items()}
    for found in ET.parse(report).iter("testcase"):
        if found.find("skipped") is None:
            has_passed = found.find("failure") is None and found.find("error") is None
            yield Case(groups[found.attrib["classname"]], found.attrib["name"], has_passed)


def _source_of(suite: str) -> Path:
    name = f"{suite}-{version(suite)}"
    if not (_BUILD / name).exists():
        what = ["--no-deps", "--no-binary", suite, "--dest", str(_BUILD), f"{suite}=={version(suite)}"]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *what], check=True)
        with tarfile.open(_BUILD / f"{name}.tar.gz") as archive:
            archive.extractall(_BUILD, filter="data")
    return _BUILD / name


def _base(case: Case) -> str:
    return case.name.partition("[")[0]


def _explained(suite: str, cases: list[Case], reasons: Mapping[str, list[str]]) -> Iterable[str]:
    failed = Counter(_base(case) for case in cases if not case.has_passed)
    for reason, names in reasons.items():
        yield f"| {suite}: {sum(failed[name] for name in names)} | {reason} |"


def _unexpected(cases: list[Case], reasons: Mapping[str, list[str]]) -> Iterable[str]:
    expected = {name for names in reasons.values() for name in names}
    failed = {_base(case) for case in cases if not case.has_passed}
    for case in cases:
        if not case.has_passed and _base(case) not in expected:
            yield f"fails, and has no reason in {_REASONS.name}: {case.name}"
    for name in sorted(expected - failed):
        yield f"passes, or is not there, and has a reason in {_REASONS.name}: {name}"


if __name__ == "__main__":
    main()
