"""Units under real systemd: the exported one, and what others write by hand."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import wait_for
from tests.system.conftest import Machine

pytestmark = pytest.mark.system

VERSE = """
name = "verse"
[daemon]
workers = 2
[services.ecstasy]
plugin = "fastpoetry"
port = 10000
"""
SLOW = """
import asyncio
from pathlib import Path
from tamed import Application, Service

class Slow(Service):
    async def start(self):
        while Path("/etc/verse/slow").exists():
            await asyncio.sleep(0.05)

application = Application("app", Slow("slow"))
"""
HANGING = """
import asyncio, time
from pathlib import Path
from tamed import Application, Service

def hang():
    while Path("/etc/verse/hang").exists():
        time.sleep(0.01)

class Hanging(Service):
    async def run(self):
        while True:
            hang()
            await asyncio.sleep(0.01)

application = Application("app", Hanging("hanging"))
"""
POEM_APP = """
from tamed import Application, ReplyServer
POEM = b"x" * 600 + b"\\n"
application = Application("app", ReplyServer("localhost:10000", lambda peer: POEM, name="poem"))
"""
VAULT = """
from dataclasses import dataclass
from tamed import Service, option, plugin

@dataclass
class Options:
    password: str = option(secret=True)

@plugin
def vault(options: Options) -> Service:
    print("digest", len(options.password))
    return Service("vault")
"""
CLIENTS = """
import collections, json, pathlib, socket, sys

counts = collections.Counter()
print("begun", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    try:
        with socket.create_connection(("127.0.0.1", 10000), timeout=100) as sock:
            text = sock.makefile("rb").read()
        counts["served" if text.endswith(b"\\n") and len(text) > 500 else "cut"] += 1
    except ConnectionRefusedError:
        counts["refused"] += 1
    except OSError:
        counts["cut"] += 1
print(json.dumps(counts))
"""
SLOW_DEPLOYMENT = 'name = "verse"\n[services.slow]\napplication = "app.py"\n'


@pytest.fixture
def verse(machine: Machine) -> Iterator[Machine]:
    """Yield the machine with the exported unit of two workers, started."""
    machine.export(VERSE)
    machine.must("systemctl", "start", "verse")
    yield machine
    machine.forget("verse")


@pytest.mark.first
def test_the_exported_unit_is_active_when_it_is_ready(verse: Machine) -> None:
    """Its tools have nothing to say against it, root's commands find it, and the status has the addresses."""
    assert verse.poem().startswith("The Ecstasy")
    assert re.fullmatch(r"verse is ready: pid \d+, listening on .*10000.*", verse.show("verse", "StatusText"))
    status = verse.must("tamed", "status", "verse")
    assert "verse is running" in status
    assert verse("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/verse.service") == (0, "", "")
    rated = verse.must("systemd-analyze", "security", "--no-pager", "--threshold=20", "verse")
    assert "Overall exposure level for verse.service: 1." in rated
    entry = next(each for each in verse.journal("verse") if "is ready" in each["MESSAGE"])
    assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["LOGGER"]) == ("verse", "6", "tamed")


@pytest.mark.first
def test_a_credential_reaches_the_service(machine: Machine) -> None:
    """The manager reads it as root, and the service as its own user; nobody else has it."""
    machine.write("/etc/verse/plugins/vault.py", VAULT)
    machine.write("/etc/credstore/db", "busy-old-fool\n")
    (machine.path / "etc/credstore/db").chmod(0o600)
    deployment = 'name = "verse"\n[services.vault]\nplugin = "vault"\npassword = "credential:db"\n'
    machine.export(deployment)
    try:
        machine.must("systemctl", "start", "verse")
        assert machine.wait_message("verse", "digest") == "digest 13"
        assert not any("busy-old-fool" in json.dumps(entry) for entry in machine.journal("verse"))
    finally:
        machine.forget("verse")


@pytest.mark.first
def test_a_reload_tells_its_outcome(verse: Machine) -> None:
    """One that fails changes nothing, and says why in the status and the journal."""
    verse.must("systemctl", "reload", "verse")
    assert verse.show("verse", "StatusText") == "verse was reloaded: generation 2, 2 workers"
    verse.write("/etc/verse/verse.toml", VERSE.replace("10000", '"many"'))
    assert verse("systemctl", "reload", "verse").status != 0
    assert verse.show("verse", "ActiveState") == "active"
    assert verse.show("verse", "StatusText").startswith("reload failed: /etc/verse/verse.toml: services.")
    assert any("expected a whole number, got 'many'" in each for each in verse.messages("verse"))


def test_a_command_in_a_home_directory_can_be_run(machine: Machine) -> None:
    """The sandbox hides such directories, unless the command is in one that its user can read."""
    machine.write("/etc/verse/verse.toml", VERSE)
    machine.must("install", "-D", "/usr/local/bin/tamed", "/home/verse/bin/tamed")
    export = ("tamed", "export", "systemd", "--command", "/home/verse/bin/tamed", "/etc/verse/verse.toml")
    try:
        assert machine.must(*export, "--install").splitlines()[-1] == "started verse.service"
        assert machine.poem().startswith("The Ecstasy")
        assert machine.show("verse", "ProtectHome") == "read-only"
        machine.must(*export, "--uninstall")
    finally:
        machine.forget("verse")
        machine.must("rm", "-r", "/home/verse")


def test_a_failed_start_shows_its_reason_once(machine: Machine) -> None:
    """It is the status of the unit, and one line of the journal; no restart would mend it."""
    machine.export(VERSE)
    machine.write("/etc/verse/verse.toml", VERSE.replace("port", 'poem = "/none.txt"\nport'))
    try:
        assert machine("systemctl", "start", "verse").status != 0
        assert machine.show("verse", "StatusText").endswith(
            "cannot read the poem /none.txt: No such file or directory; use a readable file"
        )
        assert machine.show("verse", "NRestarts") == "0"
        assert sum("/none.txt" in each for each in machine.messages("verse")) == 1
    finally:
        machine.forget("verse")


def test_a_supervisor_that_hangs_is_restarted(machine: Machine) -> None:
    """The journal has its stack."""
    machine.export(VERSE, settings="WatchdogSec=3\nRestartSec=100ms")
    try:
        machine.must("systemctl", "start", "verse")
        pid = machine.show("verse", "MainPID")
        machine.must("kill", "-STOP", pid)
        wait_for("the restart", lambda: machine.show("verse", "NRestarts") == "1")
        machine.wait_message("verse", "Fatal Python error: Aborted")
        wait_for("the service", lambda: machine.show("verse", "ActiveState") == "active")
        assert machine.show("verse", "MainPID") != pid
    finally:
        machine.forget("verse")


def test_a_stop_during_a_reload_logs_no_error(machine: Machine) -> None:
    """The reload is cancelled."""
    machine.write("/etc/verse/app.py", SLOW)
    machine.export(SLOW_DEPLOYMENT)
    try:
        machine.must("systemctl", "start", "verse")
        machine.write("/etc/verse/slow", "")
        machine.must("systemctl", "reload", "--no-block", "verse")
        wait_for("the reload", lambda: machine.show("verse", "StatusText").startswith("reloading"))
        machine.must("systemctl", "stop", "verse")
        entries = machine.journal("verse")
        assert any(each["MESSAGE"] == "the reload was cancelled: verse stops" for each in entries)
        assert [
            each for each in entries if each.get("SYSLOG_IDENTIFIER") == "verse" and each["PRIORITY"] <= "3"
        ] == []
    finally:
        (machine.path / "etc/verse/slow").unlink(missing_ok=True)
        machine.forget("verse")


def test_a_process_without_workers_survives_a_reload(machine: Machine) -> None:
    """``Type=notify-reload`` (systemd 253) sends SIGHUP; the process logs that it cannot reload."""
    if machine.version < 253:
        pytest.skip("this systemd has no Type=notify-reload")
    machine.unit("alone", "Type=notify-reload\nExecStart=/usr/local/bin/tamed run fastpoetry")
    try:
        machine.must("systemctl", "start", "alone")
        machine.must("systemctl", "reload", "alone")
        machine.wait_message("alone", "cannot reload a process without workers")
        assert machine.show("alone", "ActiveState") == "active"
        assert machine.show("alone", "StatusText").endswith("not reloaded: it has no workers")
    finally:
        machine.forget("alone")


def test_the_journal_has_the_log_of_another_root_directory(machine: Machine) -> None:
    """The process has connected before it changed its root directory."""
    (machine.path / "srv/cell").mkdir(exist_ok=True)
    machine.write("/srv/cell/poem.txt", "Busy old fool, unruly sun,\n")
    options = "--chroot /srv/cell --user nobody"
    command = f"ExecStart=/usr/local/bin/tamed run {options} fastpoetry --poem /poem.txt"
    machine.unit("cell", f"Type=notify\n{command}")
    try:
        machine.must("systemctl", "start", "cell")
        machine.wait_message("cell", "fastpoetry is ready")
        machine.must("systemctl", "stop", "cell")
        machine.wait_message("cell", "stopped")
    finally:
        machine.forget("cell")


def test_a_run_directory_that_is_a_link_is_used(machine: Machine) -> None:
    """A unit has one if its user is its own and its folder is kept."""
    keeps = "DynamicUser=yes\nRuntimeDirectory=tamed/kept\nRuntimeDirectoryPreserve=yes"
    instance = "--name kept --rundir /run/tamed --workers 1"
    reload = "ExecReload=/usr/local/bin/tamed reload --rundir /run/tamed kept"
    start = f"ExecStart=/usr/local/bin/tamed run {instance} fastpoetry"
    machine.unit("kept", f"Type=notify\n{keeps}\n{start}\n{reload}")
    try:
        machine.must("systemctl", "start", "kept")
        machine.must("test", "-L", "/run/tamed/kept")
        machine.must("systemctl", "reload", "kept")
        assert machine.show("kept", "StatusText").startswith("kept was reloaded: generation 2")
    finally:
        machine.forget("kept")


@contextmanager
def clients(machine: Machine) -> Iterator[dict[str, int]]:
    """Connect all the time inside the block; yield counts of what became of the clients."""
    machine.write("/etc/verse/clients.py", CLIENTS)
    (machine.path / "etc/verse/enough").unlink(missing_ok=True)
    counts: dict[str, int] = {}
    with machine.popen("python3", "/etc/verse/clients.py", "/etc/verse/enough") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield counts
        finally:
            machine.write("/etc/verse/enough", "")
            counts |= json.loads(process.communicate(timeout=PATIENCE)[0])


def restart(machine: Machine) -> None:
    """Restart the service three times: while one instance ends and the next begins, nobody accepts."""
    for _ in range(3):
        machine.must("systemctl", "restart", "verse")


@pytest.mark.first
def test_a_restart_refuses_no_client(verse: Machine) -> None:
    """The manager holds the sockets between two instances."""
    with clients(verse) as counts:
        restart(verse)
    assert counts.keys() == {"served"}, counts
    assert counts["served"] > 100
    assert verse.show("verse", "NFileDescriptorStore") == "2"  # IPv4 and IPv6


def test_a_restart_without_the_managers_store_refuses_clients(machine: Machine) -> None:
    """So the test above would show it."""
    machine.export(VERSE, settings="FileDescriptorStoreMax=0\nEnvironment=FDSTORE=0")
    try:
        machine.must("systemctl", "start", "verse")
        with clients(machine) as counts:
            restart(machine)
        assert counts["refused"] > 0, counts
    finally:
        machine.forget("verse")


def test_a_crash_of_the_supervisor_refuses_no_client(machine: Machine) -> None:
    """Only what was being served is cut."""
    machine.export(VERSE, settings="RestartSec=1")
    try:
        machine.must("systemctl", "start", "verse")
        with clients(machine) as counts:
            for crashes in ("1", "2"):
                machine.must("kill", "-KILL", machine.show("verse", "MainPID"))
                wait_for("the restart", lambda: machine.show("verse", "NRestarts") == crashes)  # noqa: B023
                wait_for("the service", lambda: machine.show("verse", "ActiveState") == "active")
        assert counts.get("refused", 0) == 0, counts
        assert counts["served"] > 100
    finally:
        machine.forget("verse")


def test_workers_are_as_many_as_the_quota_allows(machine: Machine) -> None:
    """A part of a CPU counts as one; the memory of the unit is that of all workers."""
    if not {"cpu", "memory"} <= set(machine.must("cat", "/sys/fs/cgroup/cgroup.controllers").split()):
        pytest.skip("this kernel has the controllers for CPU and memory in control groups of version 1")
    options = "--name few --rundir /run/tamed --workers auto --max-worker-memory auto"
    limits = "RuntimeDirectory=tamed/few\nCPUQuota=30%\nMemoryMax=1G"
    machine.unit("few", f"Type=notify\n{limits}\nExecStart=/usr/local/bin/tamed run {options} fastpoetry")
    try:
        machine.must("systemctl", "start", "few")
        status = json.loads(machine.must("tamed", "status", "--json", "few"))
        assert len(status["workers"]) == 1
        plan = json.loads((machine.path / "run/tamed/few/few.plan").read_text())
        assert plan["max_workers_memory"] == 2**30 * 9 // 10
    finally:
        machine.forget("few")


ACTIVATED = """
name = "verse"
[services.ecstasy]
plugin = "fastpoetry"
listen = "systemd://poems"
"""
INSTALL = ("tamed", "export", "systemd", "--socket", "poems=:10000", "/etc/verse/verse.toml")


def test_an_installed_deployment_starts_and_goes_again(machine: Machine) -> None:
    """With its sockets, which refuse no client in a restart; what was edited by hand stays."""
    machine.write("/etc/verse/verse.toml", ACTIVATED)
    unit = "/etc/systemd/system/verse.service"
    try:
        assert machine.must(*INSTALL, "--install").splitlines()[-1] == "started verse.service"
        for name in ("poems.socket", "verse.service"):
            assert machine.must("systemctl", "is-enabled", name).strip() == "enabled"
        files = (unit, "/etc/systemd/system/poems.socket")
        assert machine("systemd-analyze", "verify", "--man=no", *files) == (0, "", "")
        with clients(machine) as counts:
            restart(machine)
        assert counts.keys() == {"served"}, counts
        machine.must("systemctl", "stop", "verse.service")
        assert machine.poem().startswith("The Ecstasy")  # the first client starts it
        machine.must("sed", "-i", "s/^WatchdogSec=.*/WatchdogSec=99/", unit)
        done = machine(*INSTALL, "--install")
        assert (done.status, "edited by hand" in done.err) == (73, True), done
        assert machine.must(*INSTALL, "--install", "--force").splitlines()[-1] == "restarted verse.service"
        machine.must(*INSTALL[:3], "/etc/verse/verse.toml", "--uninstall")
        assert (
            machine("systemctl", "is-active", "verse.service", "poems.socket").out == "inactive\ninactive\n"
        )
        assert not any((machine.path / file.lstrip("/")).exists() for file in files)
    finally:
        machine("systemctl", "disable", "--now", "poems.socket")
        machine.forget("verse")


def test_a_worker_that_hangs_is_replaced(machine: Machine) -> None:
    """Its stacks are in the journal; the unit goes on, and so does the other worker."""
    machine.write("/etc/verse/app.py", HANGING)
    machine.export(SLOW_DEPLOYMENT.replace("[services", '[daemon]\nworkers = 2\nwatchdog = "1s"\n[services'))
    try:
        machine.must("systemctl", "start", "verse")
        pid = machine.show("verse", "MainPID")
        machine.write("/etc/verse/hang", "")
        machine.wait_message("verse", "in hang")
        (machine.path / "etc/verse/hang").unlink()
        wait_for("all", lambda: "running" in machine("tamed", "status", "verse").out)
        assert (machine.show("verse", "MainPID"), machine.show("verse", "NRestarts")) == (pid, "0")
    finally:
        (machine.path / "etc/verse/hang").unlink(missing_ok=True)
        machine.forget("verse")


def test_a_broken_release_changes_nothing(machine: Machine) -> None:
    """Neither a reload nor its failure refuses a client."""
    machine.write("/etc/verse/app.py", POEM_APP)
    machine.export(SLOW_DEPLOYMENT)
    try:
        machine.must("systemctl", "start", "verse")
        with clients(machine) as counts:
            machine.write("/etc/verse/app.py", "import no_such_module\n")
            assert machine("systemctl", "reload", "verse").status != 0
            assert "no_such_module" in machine.show("verse", "StatusText")
            machine.write("/etc/verse/app.py", POEM_APP)
            machine.must("systemctl", "reload", "verse")
        assert counts.keys() == {"served"}, counts
        machine.must("systemctl", "stop", "verse")
        machine.wait_message("verse", "stopped")
    finally:
        machine.forget("verse")


LOGROTATE = """
/var/log/verse/verse.log {
    su root root
    rotate 3
    missingok
    create 0640 verse verse
    postrotate
        test ! -e /run/tamed/verse/verse.pid || tamed reopen verse
    endscript
}
"""


def test_logrotate_has_the_log_reopened(machine: Machine) -> None:
    """As documented: what comes later is in the new file, and a stopped daemon is no error."""
    machine.must("useradd", "--system", "verse")
    machine.must("install", "-d", "-o", "verse", "-g", "verse", "/var/log/verse")
    log = machine.path / "var/log/verse/verse.log"
    machine.export(
        VERSE.replace(
            "[daemon]", '[log]\nfile = "/var/log/verse/verse.log"\nrotate = 0\n[daemon]\nuser = "verse"'
        )
    )
    machine.write("/etc/logrotate.d/verse", LOGROTATE)
    rotate = ("logrotate", "--force", "/etc/logrotate.d/verse")
    try:
        machine.must("systemctl", "start", "verse")
        machine.must(*rotate)
        machine.must("systemctl", "reload", "verse")
        assert "is ready" in log.with_name("verse.log.1").read_text()
        assert "reloaded" in log.read_text()
        machine.must("systemctl", "stop", "verse")
        machine.must(*rotate)
    finally:
        machine.forget("verse")
        machine.must("userdel", "verse")


def test_it_is_there_again_after_a_reboot(verse: Machine) -> None:
    """An enabled unit starts at boot."""
    verse.must("systemctl", "enable", "verse")
    before, boot = verse.show("verse", "ActiveEnterTimestamp"), verse.boot
    verse("systemctl", "reboot")
    wait_for("the end of the old system", lambda: verse.boot not in ("", boot))  # what enters it may hang
    wait_for(
        "the boot",
        lambda: (
            verse("systemctl", "is-system-running").out.strip() in ("running", "degraded")
            and verse.show("verse", "ActiveEnterTimestamp") not in ("", before)
        ),
    )
    assert verse.poem().startswith("The Ecstasy")
