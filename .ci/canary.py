"""Run the suites that lean on libraries with the newest release of each, whatever pyproject.toml allows.

Upper bounds are there where private names of a library are relied on. This tells before users do what a new
release breaks, and which bounds can be lifted. The environment is made anew each time, in build/canary.
Arguments go to pytest; a path among them takes the place of the suites.
"""

import json
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / "build" / "canary"
PYTHON = HOME / "bin" / "python"
SUITES = ("tests/builtin", "tests/net", "tests/twisted")


def main() -> int:
    """Make the environment, say what is in it, and run the tests; return their status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = requirements(project)
    print(f"installing the newest releases into {HOME.relative_to(ROOT)}", flush=True)
    venv.create(HOME, clear=True, with_pip=True)
    pip("install", "--quiet", "--upgrade", *wanted)
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
    report(wanted)
    sys.stdout.flush()
    words = sys.argv[1:]
    suites = () if any(word.startswith("tests") for word in words) else SUITES
    command = [str(PYTHON), "-m", "pytest", *words, *suites]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def requirements(project: dict) -> list[str]:
    """Return what the package, its extras, its build and its tests need, without versions."""
    groups = project["dependency-groups"]
    extras = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], *extras.values(), groups["build"], groups["test"]]
    named = {without_version(each) for one in lists for each in one if isinstance(each, str)}
    return sorted(each for each in named if not each.startswith(f"{project['project']['name']}["))


def without_version(requirement: str) -> str:
    """Return a requirement without its bounds; extras and markers stay."""
    named, _, marker = requirement.partition(";")
    name = re.match(r"[\w.-]+(\[[^]]*\])?", named)[0]
    return f"{name}; {marker.strip()}" if marker else name


def report(wanted: list[str]) -> None:
    """Print the version of each package, beside that of the lock where it differs."""
    locked = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / "dev.txt").read_text("utf-8"), re.MULTILINE)
    )
    direct = {re.match(r"[\w.-]+", each)[0].lower() for each in wanted}
    for package in json.loads(pip("list", "--format", "json")):
        name, version = package["name"].lower().replace("_", "-"), package["version"]
        known = locked.get(name)
        if known not in (None, version):
            print(f"  {name:<20} {version:<12} differs from the lock: {known}")
        elif name in direct:
            print(f"  {name:<20} {version}")


def pip(*words: str) -> str:
    """Run pip in the environment, and return what it prints."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
