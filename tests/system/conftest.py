"""Real systemd: roots of Debian's packages, booted in containers, with the source of Tamed in them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.structure.source import ROOT
from tests.supervised.daemon import Done, wait_for

SCRIPT = ROOT / ".ci" / "systemd-root"
SUITES = {"bookworm": 252, "trixie": 257}
"""The suites of Debian, and the version of systemd in each."""

_PACKAGES = Path("usr/lib/python3/dist-packages")
_COMMAND = "#!/usr/bin/python3 -P\nimport sys\nfrom tamed.cli.main import main\nsys.exit(main())\n"
_READER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    print(sock.makefile().read())
"""


class Machine:
    """A booted root. ``path`` is where it is outside, and ``version`` that of its systemd."""

    def __init__(self, folder: Path, version: int) -> None:
        self.path = folder / "root"
        self.version = version
        self._folder = folder
        self._cursor = ""

    def __call__(self, *words: str) -> Done:
        """Run a command in it, as root."""
        done = subprocess.run(
            [SCRIPT, "in", self._folder, *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def boot(self) -> str:
        """What differs after a reboot; empty in between."""
        try:
            return (self._folder / "nspawn.pid").read_text()
        except FileNotFoundError:
            return ""

    def popen(self, *words: str) -> "subprocess.Popen[str]":
        """Run a command in it, and do not wait for it."""
        return subprocess.Popen([SCRIPT, "in", self._folder, *words], stdout=subprocess.PIPE, text=True)

    def must(self, *words: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self(*words)
        assert done.status == 0, (words, done)
        return done.out

    def poem(self, port: int = 10000) -> str:
        """Return all that is served on a port of it; empty if nobody listens."""
        return self("python3", "-c", _READER, str(port)).out

    def write(self, path: str, text: str) -> None:
        """Write a file that every user may read; make its folder."""
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)

    def export(self, deployment: str, name: str = "verse", settings: str = "") -> None:
        """Write a deployment, have its unit made, with settings of the test's own beside it."""
        file = f"/etc/{name}/{name}.toml"
        self.write(file, deployment)
        plugins = f"/etc/{name}/plugins"
        (self.path / plugins.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.must(
            "tamed",
            "export",
            "systemd",
            "--plugin-dir",
            plugins,
            file,
            "--to",
            "/etc/systemd/system",
            "--force",
        )
        if settings:
            self.write(f"/etc/systemd/system/{name}.service.d/test.conf", f"[Service]\n{settings}\n")
        self._begin()

    def unit(self, name: str, text: str) -> None:
        """Write a service by hand."""
        self.write(f"/etc/systemd/system/{name}.service", f"[Service]\n{text}\n")
        self._begin()

    def _begin(self) -> None:
        """Load the units anew; what the journal has so far is of other tests."""
        self.must("systemctl", "daemon-reload")
        shown = self.must("journalctl", "--lines", "0", "--show-cursor", "--no-pager")
        self._cursor = shown.partition("cursor: ")[2].strip()

    def show(self, name: str, what: str) -> str:
        """Return a property of a unit."""
        return self.must("systemctl", "show", name, "--property", what, "--value").strip()

    def journal(self, name: str) -> list[dict[str, str]]:
        """Return the entries of a unit since it was written."""
        since = ("--after-cursor", self._cursor)
        lines = self.must("journalctl", "--unit", name, "--output", "json", "--no-pager", *since)
        return [json.loads(line) for line in lines.splitlines()]

    def messages(self, name: str) -> list[str]:
        """Return the texts of these entries."""
        return [str(entry.get("MESSAGE")) for entry in self.journal(name)]

    def wait_message(self, name: str, part: str) -> str:
        """Wait for an entry with this in its text; return the text."""
        return wait_for(
            f"{part!r} in the journal",
            lambda: next((each for each in self.messages(name) if part in each), None),
        )

    def forget(self, name: str) -> None:
        """Stop a unit and remove it."""
        self("systemctl", "disable", "--now", name)
        self("systemctl", "reset-failed", name)
        shutil.rmtree(self.path / f"etc/systemd/system/{name}.service.d", ignore_errors=True)
        (self.path / f"etc/systemd/system/{name}.service").unlink(missing_ok=True)
        self("systemctl", "daemon-reload")


@pytest.fixture(scope="session", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yield a booted root with Tamed in it."""
    suite = str(request.param)
    if os.geteuid() != 0:
        pytest.skip("only root can boot systemd")
    folder = Path(tempfile.mkdtemp(prefix=f"tamed-{suite}-"))
    booted = subprocess.run([SCRIPT, "boot", suite, folder], capture_output=True, text=True, check=False)
    try:
        if booted.returncode != 0:
            why = (booted.stderr.splitlines() or ["it says no reason"])[-1]
            pytest.skip(f"systemd does not boot here: {why}")
        machine = Machine(folder, SUITES[suite])
        package = machine.path / _PACKAGES / "tamed"
        shutil.copytree(ROOT / "src" / "tamed", package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (package, *package.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        # The interpreter of Debian has its scripts in /usr/local/bin, where the units look for the command.
        machine.write("/usr/local/bin/tamed", _COMMAND)
        (machine.path / "usr/local/bin/tamed").chmod(0o755)
        yield machine
    finally:
        subprocess.run([SCRIPT, "stop", folder], capture_output=True, check=False)
