from pathlib import Path

import pytest

from tests.cli.conftest import Tamed

APPLICATION = """
from tamed import Application, MultiService, Service, StreamServer

class Poem(Service): pass

async def recite(reader, writer): pass

application = Application(
    "verse",
    MultiService("art", Poem("poem"), StreamServer(["localhost:10000", "unix:/run/verse.sock"], recite)),
    Poem("science"),
)
"""
VERSE = """
[log]
level = "info"
[services.ecstasy]
plugin = "fastpoetry"
port = 10007
[services.science]
plugin = "fastpoetry"
listen = ["unix:science.sock", ":10001"]
"""


def test_the_services_are_drawn_as_a_tree(tamed: Tamed, tmp_path: Path) -> None:
    """The tree shows each service with its class, and servers with their endpoints."""
    file = tmp_path / "verse.py"
    file.write_text(APPLICATION)
    status, out, err = tamed("check", file)
    assert (status, err) == (0, "")
    assert out == (
        "verse                  Application\n"
        "├── art                MultiService\n"
        "│   ├── poem           Poem\n"
        "│   └── stream-server  StreamServer localhost:10000, unix:/run/verse.sock\n"
        "└── science            Poem\n"
    )


def test_a_deployment_is_checked_with_its_options(tamed: Tamed, tmp_path: Path) -> None:
    """Command-line values appear in the tree, and paths are relative to the file."""
    file = tmp_path / "verse.toml"
    file.write_text(VERSE)
    status, out, err = tamed("check", file, "--ecstasy.port", "0")
    assert (status, err) == (0, "")
    assert "ReplyServer localhost:0\n" in out
    assert f"ReplyServer unix:{tmp_path}/science.sock, :10001\n" in out


def test_nothing_is_bound_and_nothing_runs(tamed: Tamed, tmp_path: Path) -> None:
    """No socket file is created, and a missing poem is not an error."""
    socket_file = tmp_path / "s"
    status, out, _ = tamed(
        "check", "fastpoetry", "--listen", f"unix:{socket_file}", "--poem", tmp_path / "none"
    )
    assert status == 0
    assert f"unix:{socket_file}" in out
    assert not socket_file.exists()


def test_what_run_would_refuse_is_refused(tamed: Tamed, tmp_path: Path) -> None:
    """Settings, options and targets are validated as for a run."""
    for arguments, status, says in (
        (["--log-format", "xml", "fastpoetry"], 64, "--log-format: expected auto, human, plain or json"),
        (["fastpoetry", "--port", "x"], 64, "--port: expected a whole number, got 'x'"),
        (["fastpoetri"], 64, "unknown plugin 'fastpoetri'; did you mean 'fastpoetry'? `tamed plugins` lists"),
        ([str(tmp_path / "none.toml")], 66, f"cannot read the deployment file {tmp_path}/none.toml: No such"),
        (
            [str(tmp_path / "none.py")],
            66,
            f"cannot read the application file {tmp_path}/none.py: No such file",
        ),
        (["nothing.here:app"], 66, "target 'nothing.here:app': there is no module 'nothing'"),
    ):
        done = tamed("check", *arguments)
        assert (done.status, done.out) == (status, "")
        assert done.err.startswith(f"tamed: {says}")
        assert done.err.count("\n") == 1


def test_all_errors_are_shown_at_once(tamed: Tamed, tmp_path: Path) -> None:
    """The errors of settings and of each service are shown one a line, with the status of the first."""
    file = tmp_path / "verse.toml"
    file.write_text(
        """
        [daemon]
        workers = "x"
        usr = "nobody"
        [log]
        level = "loud"
        [services.one]
        plugin = "fastpoetry"
        prt = 10
        [services.two]
        plugin = "fastpoetr"
        [services.three]
        plugin = "fastpoetry"
        port = "abc"
        poem = 3
        """
    )
    status, out, err = tamed("check", file)
    assert (status, out) == (78, "")
    assert [line.removeprefix(f"tamed: {file}: ").partition(": ")[0] for line in err.splitlines()] == [
        "daemon",
        "daemon.workers",
        "log.level",
        "services.one",
        "services.two.plugin",
        "services.three.port",
        "services.three.poem",
    ]


def test_all_errors_of_the_tables_are_shown_at_once(tamed: Tamed, tmp_path: Path) -> None:
    """Table errors come first, because the options cannot be found without the tables."""
    file = tmp_path / "verse.toml"
    file.write_text('nam = 1\ndaemon = 3\n[services.a]\n[services.b]\nplugin = "fastpoetry"\nport = "x"\n')
    status, _, err = tamed("check", file)
    whats = [line.removeprefix(f"tamed: {file}: ").partition(": ")[0] for line in err.splitlines()]
    assert (status, whats) == (78, ["unknown key 'nam'; did you mean 'name'?", "daemon", "services.a"])


def test_settings_that_are_wrong_hide_no_values_of_an_environment_file(tamed: Tamed, tmp_path: Path) -> None:
    """An option that an unread environment file may contain is not reported as missing."""
    (tmp_path / "env").write_text("POEM=x\n")
    file = tmp_path / "verse.toml"
    file.write_text(
        f'[daemon]\nenv-file = "{tmp_path}/env"\nworkers = 0\n'
        '[services.a]\nplugin = "fastpoetry"\npoem = "${POEM}"\n'
    )
    status, _, err = tamed("check", file)
    assert (status, err.count("\n")) == (78, 1)
    assert "daemon.workers" in err


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("localhost:10001", "localhost:10001", True),
        ("localhost:10001", ":10001", True),
        ("127.0.0.1:10001", "localhost:10001", True),
        ("0.0.0.0:10001", "127.0.0.1:10001", True),
        ("[::]:10001", "[::1]:10001", True),
        ("unix:a.sock", "unix:./a.sock", True),
        ("unix:@a", "unix:@a", True),
        ("0.0.0.0:10001", "[::1]:10001", False),
        ("localhost:0", "localhost:0", False),
        ("localhost:10001", "localhost:10002", False),
        ("127.0.0.1:10001", "127.0.0.2:10001", False),
        ("unix:a.sock", "localhost:10001", False),
    ],
)
def test_two_servers_that_want_one_address_are_an_error(
    tamed: Tamed, tmp_path: Path, one: str, other: str, conflict: bool
) -> None:
    """The conflict is found in either order, even if one service listens on every address."""
    file = tmp_path / "verse.toml"
    for first, second in ((one, other), (other, one)):
        file.write_text(
            f'[services.a]\nplugin = "fastpoetry"\nlisten = "{first}"\n'
            f'[services.b]\nplugin = "fastpoetry"\nlisten = "{second}"\n'
        )
        status, _, err = tamed("check", file)
        assert (status, err.startswith("tamed: b/server cannot listen on ")) == (
            (78, True) if conflict else (0, False)
        )


def test_datagrams_and_streams_may_have_the_same_port(tamed: Tamed, tmp_path: Path) -> None:
    """UDP and TCP number their ports separately."""
    file = tmp_path / "two.py"
    file.write_text(
        "import asyncio\n"
        "from tamed import Application, DatagramServer, ProtocolServer\n"
        "application = Application("
        "'two', DatagramServer('localhost:10001', asyncio.DatagramProtocol, name='u'),"
        " ProtocolServer('localhost:10001', asyncio.Protocol, name='t'))\n"
    )
    assert tamed("check", file).status == 0


def test_misspelt_variables_are_a_warning(
    tamed: Tamed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Variables that resemble an option of Tamed or of the service are reported; others are not."""
    for name in ("TAMED_WORKER", "TAMED_LOG_LEVLE", "TAMED_FASTPOETRY_PROT", "TAMED_RUNDIRS", "TAMED_MINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TAMED_FASTPOETRY_PORT", "0")
    status, _, err = tamed("check", "fastpoetry")
    assert status == 0
    assert err.splitlines() == [
        f"tamed: warning: the variable TAMED_{wrong} has no effect; did you mean TAMED_{right}?"
        for wrong, right in (
            ("FASTPOETRY_PROT", "FASTPOETRY_PORT"),
            ("LOG_LEVLE", "LOG_LEVEL"),
            ("RUNDIRS", "RUNDIR"),
            ("WORKER", "WORKERS"),
        )
    ]
    err = tamed("run", "--directory", tmp_path, tmp_path / "none.py").err
    assert err.count("warning") == 3, "a run imports no plugin for this"


@pytest.mark.parametrize("status", [0, 3])
def test_an_application_that_exits_while_it_is_loaded_is_an_error(
    tamed: Tamed, tmp_path: Path, status: int
) -> None:
    """An application that calls ``sys.exit`` fails the check with its status."""
    file = tmp_path / "leaver.py"
    file.write_text(f"raise SystemExit({status})")
    told = tamed("check", file)
    assert told == (70, "", f"tamed: {file} ended while it was loaded, with status {status}\n")


def test_code_that_exits_while_it_is_loaded_is_named(tamed: Tamed, tmp_path: Path) -> None:
    """That is the module of an application for the web, or the plugin, not what was to be run."""
    (tmp_path / "check_test_leaver.py").write_text("raise SystemExit(3)")
    (tmp_path / "leaver.py").write_text(
        "from tamed import plugin\n\n\n@plugin\ndef leaver():\n    raise SystemExit('no paper')\n"
    )
    (tmp_path / "verse.toml").write_text('[services.verse]\nplugin = "leaver"\n')
    told = tamed("check", "web", "--app", "check_test_leaver:app", "--app-dir", tmp_path)
    assert told == (70, "", "tamed: check_test_leaver ended while it was imported, with status 3\n")
    for target in ("leaver", tmp_path / "verse.toml"):
        told = tamed("check", "--plugin-dir", tmp_path, target)
        assert told == (70, "", "tamed: plugin leaver ended while making its service, with status 1\n")
