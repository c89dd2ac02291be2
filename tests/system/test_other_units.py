"""Units of other shapes under real systemd: one for each service of a deployment, and units of a user."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.docs.reader import blocks_of, pattern_of
from tests.structure.source import ROOT
from tests.supervised.daemon import Done, wait_for
from tests.system.conftest import Machine
from tests.system.test_units import VAULT

pytestmark = pytest.mark.system

TWO = """
name = "verse"
[services.ecstasy]
plugin = "fastpoetry"
port = 10000
[services.science]
plugin = "fastpoetry"
listen = "systemd://science"
"""
OF_USER = """
name = "verse"
[services.ecstasy]
plugin = "fastpoetry"
port = 10002
[services.vault]
plugin = "vault"
password = "credential:db"
"""
INSTALL = ("tamed", "export", "systemd")


def test_each_service_has_a_unit(machine: Machine) -> None:
    """One stops, fails and restarts without the others; the target has them all."""
    machine.write("/etc/verse/verse.toml", TWO)
    split = (*INSTALL, "--split", "--socket", "science=:10001", "/etc/verse/verse.toml")
    units = ("verse.target", "verse-ecstasy.service", "science.socket", "verse-science.service")
    files = [f"/etc/systemd/system/{name}" for name in units]
    try:
        out = machine.must(*split, "--install")
        assert sorted(out.splitlines()[4:]) == sorted(f"started {name}" for name in units)
        assert machine("systemd-analyze", "verify", "--man=no", *files) == (0, "", "")
        for name in ("verse-ecstasy", "verse-science"):
            machine.must("systemd-analyze", "security", "--no-pager", "--threshold=20", name)
            status = json.loads(machine.must("tamed", "status", "--json", name))
            services = status["workers"][0]["tree"]["children"]
            assert [each["name"] for each in services] == [name.partition("-")[2]]
        machine.must("systemctl", "reload", "verse-science")
        machine.must("systemctl", "stop", "verse-ecstasy")
        assert (machine.poem(10000), machine.poem(10001)[:11]) == ("", "The Ecstasy")
        machine.must("systemctl", "start", "verse.target")
        before = machine.show("verse-science", "MainPID")
        machine.must("systemctl", "restart", "verse.target")
        assert machine.show("verse-science", "MainPID") != before
        assert machine.poem(10000).startswith("The Ecstasy")
        done = machine(*INSTALL, "/etc/verse/verse.toml", "--install")
        assert (done.status, "verse.target is from an earlier installation" in done.err) == (73, True), done
        machine.must(*INSTALL, "--uninstall", "/etc/verse/verse.toml")
        assert not any((machine.path / file.lstrip("/")).exists() for file in files)
        assert machine("systemctl", "is-active", *units).out.split() == ["inactive"] * 4
    finally:
        for name in ("science.socket", *units):
            machine("systemctl", "disable", "--now", name)
            (machine.path / f"etc/systemd/system/{name}").unlink(missing_ok=True)
        machine.must("systemctl", "daemon-reload")


READ = """#!/bin/bash
exec cat < "/dev/tcp/$1/$2"
"""


class User:
    """A user of the machine whose manager runs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._id = machine.must("id", "--user", "poet").strip()

    def __call__(self, *words: str) -> Done:
        """Run a command as that user, as in a session."""
        runtime = f"XDG_RUNTIME_DIR=/run/user/{self._id}"
        return self._machine("runuser", "-u", "poet", "--", "env", "HOME=/home/poet", runtime, *words)

    def must(self, *words: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self(*words)
        assert done.status == 0, (words, done)
        return done.out


@pytest.fixture
def poet(machine: Machine) -> Iterator[User]:
    """Yield a user whose manager runs. The root has no module of PAM that would name its folder."""
    machine.must("useradd", "--create-home", "poet")
    manager = f"user@{machine.must('id', '--user', 'poet').strip()}.service"
    settings = "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n"
    machine.write("/etc/systemd/system/user@.service.d/test.conf", settings)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", manager)
    yield User(machine)
    machine("systemctl", "stop", manager)
    machine("userdel", "--force", "--remove", "poet")


def test_a_user_needs_no_root(machine: Machine, poet: User) -> None:
    """The unit is installed, started, reloaded and removed by the user, whose commands find the daemon."""
    machine.write("/home/poet/verse.toml", OF_USER)
    machine.write("/home/poet/vault.py", VAULT)
    machine.write("/home/poet/.config/credstore/db", "busy-old-fool\n")
    machine.must("chown", "--recursive", "poet:poet", "/home/poet")
    export = (*INSTALL, "--user", "--plugin-dir", "/home/poet", "/home/poet/verse.toml")
    unit = "/home/poet/.config/systemd/user/verse.service"
    assert poet.must(*export, "--install").splitlines() == [f"wrote {unit}", "started verse.service"]
    assert poet.must("systemctl", "--user", "is-enabled", "verse").strip() == "enabled"
    assert poet("systemd-analyze", "--user", "verify", "--man=no", unit) == (0, "", "")
    assert machine.poem(10002).startswith("The Ecstasy")
    poet.must("systemctl", "--user", "reload", "verse")
    shown = poet.must("systemctl", "--user", "show", "--property", "StatusText", "--value", "verse")
    assert shown.startswith("verse was reloaded: generation 2")
    assert "verse is running" in poet.must("tamed", "status", "verse")
    journal = ("journalctl", "--no-pager", f"_UID={machine.must('id', '--user', 'poet').strip()}")
    wait_for("the secret", lambda: "digest 13" in machine.must(*journal))
    poet.must(*export, "--uninstall")
    assert poet("systemctl", "--user", "is-active", "verse").out.strip() == "inactive"
    assert machine.poem(10002) == ""


@pytest.mark.first
def test_the_readme_leads_to_a_unit(machine: Machine, poet: User) -> None:
    """Its files are saved, and what it types with systemd, or before a file, is typed: that is what comes."""
    folder = "/home/poet/poems"
    page = [*blocks_of(ROOT / "README.md")]
    machine.write("/usr/local/bin/nc", READ)
    (machine.path / "usr/local/bin/nc").chmod(0o755)
    for block in page:
        if block.name:
            machine.write(f"{folder}/{block.name}", block.text)
    machine.must("chown", "--recursive", "poet:poet", "/home/poet")
    typed = [each.text for each in page if re.match(r"\$ mkdir|\$ tamed export .*--install", each.text)]
    assert len(typed) == 2
    for command in re.split(r"^\$ ", "".join(typed), flags=re.MULTILINE)[1:]:
        words, _, shown = command.partition("\n")
        done = poet("bash", "-c", f"cd {folder}; {words}")
        assert re.fullmatch(pattern_of(shown), done.out + done.err), (words, done)
        assert done.status == 0
