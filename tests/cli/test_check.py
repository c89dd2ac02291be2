from pathlib import Path

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
    """Each with its class, servers with their endpoints."""
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
    """What is given on the command line stands in the tree, and paths start beside the file."""
    file = tmp_path / "verse.toml"
    file.write_text(VERSE)
    status, out, err = tamed("check", file, "--ecstasy.port", "0")
    assert (status, err) == (0, "")
    assert "ReplyServer localhost:0\n" in out
    assert f"ReplyServer unix:{tmp_path}/science.sock, :10001\n" in out


def test_nothing_is_bound_and_nothing_runs(tamed: Tamed, tmp_path: Path) -> None:
    """A socket file does not appear, and a poem that does not exist is not missed."""
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
