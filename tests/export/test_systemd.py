"""Units of systemd: what stands in them, and what systemd's own tools say of them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from itertools import chain
from pathlib import Path

import pytest

from tests.cli.conftest import Tamed

COMMAND = Path(sysconfig.get_path("scripts"), "tamed")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def unit_of(run: Tamed, folder: Path, services: str, *options: str) -> str:
    """Return the unit of a deployment named verse."""
    (folder / "verse.toml").write_text(f'name = "verse"\n{services}')
    done = run("export", "systemd", *options, folder / "verse.toml")
    assert (done.status, done.err) == (0, ""), done
    return done.out


def values(unit: str, name: str) -> list[str]:
    """Return the values of a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)


def poetry(port: int = 10000) -> str:
    """Return a service of a deployment."""
    return f'[services.ecstasy]\nplugin = "fastpoetry"\nport = {port}\n'


WEB = '[services.site]\nplugin = "web"\nroot = "/usr/share"\n'
VAULT = """
from dataclasses import dataclass
from tamed import Application, Service, option, plugin

@dataclass
class Options:
    password: str = option(secret=True)
    host: str = ""

@plugin
def vault(options: Options) -> Service:
    return Service("vault")

application = Application("vault", Service("vault"))
"""
EXEC = '[services.job]\nplugin = "exec"\ncommand = "sleep 1h"\n'


def test_times_follow_from_the_settings(tamed: Tamed, tmp_path: Path) -> None:
    """The manager waits longer than the daemon itself does, which ends what takes too long and says why."""
    times = 'start-timeout = "5m"\ndrain-timeout = "90s"\nstop-delay = "7s"\nmax-files = 4096\n'
    unit = unit_of(tamed, tmp_path, f"[daemon]\n{times}{poetry()}")
    assert values(unit, "TimeoutStartSec") == ["320"]
    assert values(unit, "TimeoutStopSec") == ["147"]
    assert values(unit, "LimitNOFILE") == ["4096"]
    assert int(*values(unit, "RestartSec")) * 5 > 10  # systemd's limit is five starts in ten seconds


def test_the_command_is_an_instance_of_roots_run_directory(tamed: Tamed, tmp_path: Path) -> None:
    """Root's commands find it by its name; a supervisor makes a reload possible."""
    options = ("--command", "/opt/verse/bin/tamed", "--path", "/etc/verse/verse.toml")
    unit = unit_of(tamed, tmp_path, poetry(), *options)
    instance = "--rundir /run/tamed"
    assert values(unit, "ExecStart") == [
        f"/opt/verse/bin/tamed run --name verse {instance} --workers 1 /etc/verse/verse.toml"
    ]
    assert values(unit, "ExecReload") == [f"/opt/verse/bin/tamed reload {instance} verse"]
    assert values(unit, "RuntimeDirectory") == ["tamed/verse"]
    assert values(unit, "WorkingDirectory") == ["/etc/verse"]
    unit = unit_of(tamed, tmp_path, f"[daemon]\nworkers = 3\n{poetry()}", *options)
    assert "--workers" not in values(unit, "ExecStart")[0]


def test_words_are_quoted_as_systemd_reads_them(tamed: Tamed, tmp_path: Path) -> None:
    """Spaces, quotes, percent and dollar signs in paths stay what they are."""
    unit = unit_of(tamed, tmp_path, poetry(), "--command", '/a b/"t"', "--path", "/100%/$x/verse.toml")
    assert values(unit, "ExecStart")[0].startswith('"/a b/\\"t\\"" run ')
    assert values(unit, "ExecStart")[0].endswith(" /100%%/$$x/verse.toml")
    assert values(unit, "WorkingDirectory") == ["/100%%/$x"]


def test_the_user_is_the_deployments_or_one_of_its_own(tamed: Tamed, tmp_path: Path) -> None:
    """Only a deployment that says so runs as root."""
    assert values(unit_of(tamed, tmp_path, poetry()), "DynamicUser") == ["yes"]
    unit = unit_of(tamed, tmp_path, f'[daemon]\nuser = "verse"\ngroup = "poets"\n{poetry()}')
    assert (values(unit, "User"), values(unit, "Group"), values(unit, "DynamicUser")) == (
        ["verse"],
        ["poets"],
        [],
    )
    unit = unit_of(tamed, tmp_path, f'[daemon]\nuser = "root"\n{poetry()}')
    assert values(unit, "User") == values(unit, "DynamicUser") == []
    assert "# Root, as configured in the deployment" in unit


def test_the_sandbox_has_a_reason_for_each_hole(tamed: Tamed, tmp_path: Path) -> None:
    """A privileged port, a program of any kind, a file in a home: what is left open says why."""
    unit = unit_of(tamed, tmp_path, poetry())
    assert values(unit, "CapabilityBoundingSet") == values(unit, "AmbientCapabilities") == [""]
    assert values(unit, "PrivateUsers") == values(unit, "MemoryDenyWriteExecute") == ["yes"]
    unit = unit_of(tamed, tmp_path, poetry(80))
    assert values(unit, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert values(unit, "PrivateUsers") == []
    assert "# To bind port 80, which is below 1024" in unit
    unit = unit_of(tamed, tmp_path, EXEC)
    assert values(unit, "MemoryDenyWriteExecute") == []
    assert "# A service runs programs" in unit
    for option, path in (("--path", "/home/john/verse.toml"), ("--command", "/home/john/poems/bin/tamed")):
        places = {"--path": "/etc/verse.toml", "--command": "/opt/verse/bin/tamed", option: path}
        unit = unit_of(tamed, tmp_path, poetry(), *chain.from_iterable(places.items()))
        assert values(unit, "ProtectHome") == ["read-only"]
        assert f"# {path} is in a home directory." in unit
        assert values(unit, "PrivateTmp") == ["yes"]


def test_the_interpreter_of_the_unit_can_be_read(tamed: Tamed, tmp_path: Path) -> None:
    """It may be in a home, and the environment elsewhere; one on another machine is not known."""
    home = next(
        (home for home in ("/home", "/root") if Path(sys.executable).resolve().is_relative_to(home)), ""
    )
    unit = unit_of(tamed, tmp_path, poetry(), "--path", "/etc/verse.toml")
    assert values(unit, "ProtectHome") == ["read-only" if home else "yes"]
    unit = unit_of(
        tamed, tmp_path, poetry(), "--path", "/etc/verse.toml", "--command", "/opt/verse/bin/tamed"
    )
    assert values(unit, "ProtectHome") == ["yes"]


def test_folders_of_sockets_and_logs_can_be_written(tamed: Tamed, tmp_path: Path) -> None:
    """All others are read-only, but the service's own."""
    listen = '[services.ecstasy]\nplugin = "fastpoetry"\nlisten = "unix:/srv/verse/poem.sock"\n'
    unit = unit_of(tamed, tmp_path, f'[log]\nfile = "/var/log/verse/verse.log"\n{listen}')
    assert values(unit, "ReadWritePaths") == ["/srv/verse /var/log/verse"]
    assert values(unit, "UMask") == ["0027"]


def test_sockets_of_systemd_are_required(tamed: Tamed, tmp_path: Path) -> None:
    """The socket unit, which has the address, starts before."""
    listen = '[services.ecstasy]\nplugin = "fastpoetry"\nlisten = "systemd://poems"\n'
    unit = unit_of(tamed, tmp_path, listen)
    assert values(unit, "Requires") == ["poems.socket"]


def test_sockets_with_an_address_have_a_unit(tamed: Tamed, tmp_path: Path) -> None:
    """It passes them by name, IPv4 and IPv6 apart, to the service, which need not know the address."""
    listen = '[services.ecstasy]\nplugin = "fastpoetry"\nlisten = ["systemd://poems", "systemd://local"]\n'
    sockets = ("--socket", "poems=:80", "--socket", "local=unix:/run/100%25/p.sock?mode=600")
    unit = unit_of(tamed, tmp_path, listen, *sockets)
    assert "has the address of" not in unit
    assert values(unit, "Requires") == ["local.socket", "poems.socket"]
    assert values(unit, "ListenStream") == ["/run/100%%/p.sock", "0.0.0.0:80", "[::]:80"]
    assert values(unit, "SocketMode") == ["0600"]
    assert values(unit, "BindIPv6Only") == ["ipv6-only"]
    assert values(unit, "FileDescriptorName") == ["local", "poems"]
    assert values(unit, "Service") == ["verse.service"] * 2
    unit = unit_of(tamed, tmp_path, listen, "--socket", "poems=localhost:80")
    assert values(unit, "ListenStream") == ["127.0.0.1:80", "[::1]:80"]
    for address, why in (("verse.example:80", "does not resolve"), ("unix:p.sock", "is not absolute")):
        done = tamed("export", "systemd", "--socket", f"poems={address}", tmp_path / "verse.toml")
        assert (done.status, why in done.err) == (78, True), done


def test_credentials_are_loaded(tamed: Tamed, tmp_path: Path) -> None:
    """The manager finds each by its name; to make the unit, none need be here."""
    (tmp_path / "vault.py").write_text(VAULT)
    services = '[services.vault]\napplication = "vault.py"\n[services.b]\nplugin = "vault"\n'
    (tmp_path / "verse.toml").write_text(f'{services}password = "credential:db"\n')
    export = ("export", "systemd", "--plugin-dir", tmp_path, tmp_path / "verse.toml")
    unit = tamed(*export).out
    assert f" --plugin-dir {tmp_path} {tmp_path}/verse.toml" in values(unit, "ExecStart")[0]
    assert f"tamed export systemd --plugin-dir {tmp_path} {tmp_path}/verse.toml\n" in unit
    assert values(unit, "LoadCredential") == ["db"]
    assert "stand-in" not in unit


TWO = """[services.ode]
plugin = "fastpoetry"
listen = "systemd://odes"
[services.vault]
plugin = "vault"
password = "credential:db"
host = "${VAULT_HOST}"
"""


def test_each_service_may_have_a_unit(tamed: Tamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has what it needs itself, and is part of the target; nothing is in two units."""
    monkeypatch.setenv("VAULT_HOST", "vault.example")
    (tmp_path / "vault.py").write_text(VAULT)
    (tmp_path / "verse.toml").write_text(TWO)
    export = ("export", "systemd", "--split", "--plugin-dir", tmp_path, "--socket", "odes=:80")
    done = tamed(*export, tmp_path / "verse.toml", "--to", tmp_path / "units")
    assert (done.status, done.err) == (0, "")
    units = {path.name: path.read_text() for path in (tmp_path / "units").iterdir()}
    assert sorted(units) == ["odes.socket", "verse-ode.service", "verse-vault.service", "verse.target"]
    assert values(units["verse.target"], "WantedBy") == ["multi-user.target"]
    ode, vault = units["verse-ode.service"], units["verse-vault.service"]
    for name, unit in (("ode", ode), ("vault", vault)):
        assert (
            f" run --name verse-{name} --rundir /run/tamed --service {name} " in values(unit, "ExecStart")[0]
        )
        assert values(unit, "PartOf") == values(unit, "WantedBy") == ["verse.target"]
        assert values(unit, "RuntimeDirectory") == [f"tamed/verse-{name}"]
    assert (values(ode, "Requires"), values(vault, "Requires")) == (["odes.socket"], [])
    assert (values(ode, "LoadCredential"), values(vault, "LoadCredential")) == ([], ["db"])
    assert (values(ode, "EnvironmentFile"), values(vault, "EnvironmentFile")) == (
        [],
        ["-/etc/default/verse-vault"],
    )
    assert "# The file has lines NAME=VALUE for: VAULT_HOST." in vault
    assert values(units["odes.socket"], "Service") == ["verse-ode.service"]
    assert "vault.example" not in "".join(units.values())


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        (
            "--split",
            '[log]\nfile = "x.log"\n',
            "verse.toml:2: log.file: split units cannot share it",
        ),
        ("--split", '[daemon]\nops = ":1"\n', "verse.toml:2: daemon.ops: split units cannot share it"),
        (
            "--split",
            "",
            "verse.toml:6: services.b.listen: a uses systemd://s, too, and split units",
        ),
        ("--user", 'name = "vérse"\n', "verse.toml:1: name: 'vérse' cannot name a unit; use up to"),
        (
            "--split",
            "services.'é'.plugin = 'fastpoetry'\n",
            "verse.toml:1: services.é.plugin: 'verse-é' cannot name",
        ),
        (
            "--user",
            "services.c = {plugin = 'fastpoetry', listen = 'systemd://a+b'}\n",
            ":1: services.c: 'a+b' cannot",
        ),
        ("--user", '[daemon]\nuser = "poet"\n', "verse.toml:2: daemon.user: a user manager has only that"),
        (
            "--user",
            "daemon.prepare-as-root = true\n",
            "verse.toml:1: daemon.prepare-as-root: a user manager has only that",
        ),
    ],
    ids=["log file", "endpoint", "socket", "name", "service", "name of a socket", "user", "root"],
)
def test_what_other_units_cannot_have_says_where(
    tamed: Tamed, tmp_path: Path, option: str, text: str, why: str
) -> None:
    """Nothing is written."""
    service = '[services.{}]\nplugin = "fastpoetry"\nlisten = "systemd://{}"\n'
    sockets = ("s", "s") if "services.b.listen" in why else ("s", "t")
    services = [service.format(name, socket) for name, socket in zip("ab", sockets, strict=True)]
    (tmp_path / "verse.toml").write_text(text + "".join(services))
    done = tamed("export", "systemd", option, tmp_path / "verse.toml", "--to", tmp_path / "out")
    assert (done.status, why in done.err) == (78, True), done
    assert not (tmp_path / "out").exists()


def test_no_value_is_another_setting(tamed: Tamed, tmp_path: Path) -> None:
    """A name or a path with the end of a line is refused."""
    (tmp_path / "verse.toml").write_text(f'[daemon]\nuser = "poet\\nExecStartPre=/bin/true"\n{poetry()}')
    done = tamed("export", "systemd", tmp_path / "verse.toml")
    assert (done.status, done.out) == (78, "")
    assert "a line would contain 'User=poet\\nExecStartPre=/bin/true'" in done.err
    done = tamed("export", "systemd", "--path", "/etc/a\nb.toml", tmp_path / "verse.toml")
    assert (done.status, done.out) == (64, "")


def test_a_unit_of_a_user_asks_for_nothing_that_takes_root(tamed: Tamed, tmp_path: Path) -> None:
    """Its run directory is the user's own; a privileged port is what the system must allow."""
    unit = unit_of(tamed, tmp_path, poetry(80), "--user")
    assert " run --name verse --workers 1 /" in values(unit, "ExecStart")[0]
    assert values(unit, "WantedBy") == ["default.target"]
    assert "ip_unprivileged_port_start" in unit
    for name in (
        "DynamicUser",
        "User",
        "AmbientCapabilities",
        "ProtectSystem",
        "PrivateUsers",
        "RuntimeDirectory",
    ):
        assert values(unit, name) == []
    assert values(unit, "SystemCallFilter") == ["@system-service", "~@privileged @resources"]


def test_a_deployment_that_cannot_be_exported_says_why(tamed: Tamed, tmp_path: Path) -> None:
    """The message has the key; nothing is written."""
    file = tmp_path / "verse.toml"
    for text, status, why in (
        (f'[daemon]\nchroot = "/srv"\n{poetry()}', 78, "daemon.chroot: files that a start needs are outside"),
        (poetry().replace("port", "prot"), 78, "services.ecstasy: unknown key 'prot'"),
        ("[services", 78, "verse.toml:1:10: not TOML"),
    ):
        file.write_text(text)
        done = tamed("export", "systemd", file, "--to", tmp_path / "out")
        assert (done.status, done.out) == (status, ""), done
        assert why in done.err
    assert tamed("export", "systemd", "fastpoetry").status == 64
    assert not (tmp_path / "out").exists()


def test_the_environment_does_not_count(
    tamed: Tamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file makes the same unit in every environment."""
    before = unit_of(tamed, tmp_path, poetry())
    monkeypatch.setenv("TAMED_DRAIN_TIMEOUT", "10m")
    monkeypatch.setenv("TAMED_ECSTASY_PORT", "80")
    assert unit_of(tamed, tmp_path, poetry()) == before


@needs_systemd
@pytest.mark.parametrize(
    "services", [poetry() + WEB, poetry(80), EXEC], ids=["poetry and web", "port 80", "exec"]
)
def test_systemd_accepts_it(tamed: Tamed, tmp_path: Path, services: str) -> None:
    """``systemd-analyze verify`` has nothing to say, and the exposure is at most 2.0."""
    (tmp_path / "verse.service").write_text(
        unit_of(tamed, tmp_path, services, "--command", str(COMMAND), "--path", "/etc/verse.toml")
    )
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_COLOR": "0", "SYSTEMD_COLORS": "0"}
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "verse.service"],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", tmp_path / "verse.service"],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr
    assert re.search(r"Overall exposure level .*: [01]\.\d|: 2\.0 ", rated.stdout)


def test_systemd_keeps_as_many_sockets_as_there_may_be(tamed: Tamed, tmp_path: Path) -> None:
    """Each endpoint may have one for IPv4 and one for IPv6, a reload has new ones beside the old."""
    listen = '[services.ecstasy]\nplugin = "fastpoetry"\nlisten = [{}]\n'
    unit = unit_of(tamed, tmp_path, listen.format('":10000", "unix:/run/tamed/verse/poem.sock"'))
    assert values(unit, "FileDescriptorStoreMax") == ["6"]
    assert values(unit, "Environment") == ["FDSTORE=6"]
    assert values(unit, "RuntimeDirectoryPreserve") == ["restart"]
    unit = unit_of(tamed, tmp_path, listen.format('"systemd://poems"'))
    assert values(unit, "FileDescriptorStoreMax") == values(unit, "RuntimeDirectoryPreserve") == []
