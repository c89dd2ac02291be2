"""Every row of docs/reference/bad-input.md, run as it stands there."""

import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.process.conftest import run_tamed, without_capabilities

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "bad-input.md").read_text("utf-8")


class Row(NamedTuple):
    """A row of the table."""

    what: str
    command: str
    message: str
    status: int


def rows() -> list[Row]:
    """Return the table, without its head and without the marks of code."""
    lines = [line[2:-2].split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    texts = [[cell.strip("`").strip() for cell in line] for line in lines[1:]]
    return [Row(what, command, message, int(status)) for what, command, message, status in texts]


def files() -> dict[str, str]:
    """Return the files on the page; the first line of each is its name."""
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return {name: f"# {name}\n{text}" for name, text in blocks}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with the files on the page, a poem that nobody may read, and two certificates."""
    folder = tmp_path_factory.mktemp("stage")
    for name, text in files().items():
        (folder / name).write_text(text)
    (folder / "secret.txt").touch(mode=0)
    authority = trustme.CA()
    for name in ("a", "b"):
        certificate = authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture
def taken() -> Iterator[int]:
    """Take a port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.what)
def test_bad_input_is_reported_as_the_table_says(row: Row, stage: Path, taken: int) -> None:
    """The message is the last line on stderr, and the only one, but for the user's own traceback."""
    if "--port 80`" in f"{row.command}`" and _unprivileged_ports() <= 80:
        pytest.skip("every port is for everybody here")
    before = sorted(stage.iterdir())
    words = shlex.split(
        row.command.replace("PORT", str(taken)) if "--port PORT" in row.command else row.command
    )
    env = dict(word.split("=", 1) for word in words[: words.index("tamed")])
    arguments = words[words.index("tamed") + 1 :]
    done = run_tamed(*arguments, cwd=stage, env=env, before=without_capabilities(), may_fork=True)
    *traceback, line = done.stderr.splitlines()
    expected = re.escape(f"tamed: {row.message}").replace("…", ".*")
    assert re.fullmatch(
        expected.replace("PORT", str(taken)) if "--port PORT" in row.command else expected, line
    )
    assert done.returncode == row.status
    assert done.stdout == ""
    assert not traceback or (traceback[0].startswith("Traceback") and row.status == 70)
    assert sorted(stage.iterdir()) == before


def test_a_traceback_has_the_users_lines_only(stage: Path) -> None:
    """It is the one that the page shows, but for the marks below the lines, which differ between Pythons."""
    shown = PAGE[PAGE.index("Traceback") :].removesuffix("```\n")
    assert _without_marks(run_tamed("run", "raises.py", cwd=stage).stderr) == _without_marks(shown)
    told = run_tamed("run", "fails.py", cwd=stage).stderr
    assert re.findall('File "(.*)"', told) == ["fails.py"]


@pytest.mark.parametrize("why", ["port", "poem", "key"])
def test_nothing_is_left_listening(why: str, stage: Path, taken: int, tmp_path: Path) -> None:
    """What was bound before the failure is closed, and its file removed, whichever step fails."""
    file = tmp_path / "verse.sock"
    bad = {
        "port": ["--listen", f"127.0.0.1:{taken}"],
        "poem": ["--poem", "nope.txt"],
        "key": ["--listen", "tls://127.0.0.1:0?cert=a.pem&key=b.key"],
    }[why]
    done = run_tamed("run", "fastpoetry", "--listen", f"unix:{file}", *bad, cwd=stage)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert not file.exists()


def test_what_was_started_is_stopped_when_a_later_start_fails(tmp_path: Path) -> None:
    """The log shows the stops; its last line is the reason of the failure."""
    (tmp_path / "verse.toml").write_text(
        '[services.good]\nplugin = "fastpoetry"\nlisten = "unix:good.sock"\n'
        '[services.bad]\nplugin = "fastpoetry"\nlisten = "unix:bad.sock"\npoem = "none.txt"\n'
    )
    done = run_tamed("run", "verse.toml", cwd=tmp_path)
    assert done.returncode == 66
    assert f"listening on unix:{tmp_path}/good.sock" in done.stderr
    assert "stopped good/server" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"tamed: service bad/poetry failed in start: cannot read the poem {tmp_path}/none.txt: "
        "No such file or directory; use a readable file"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["verse.toml"]


def _without_marks(traceback: str) -> list[str]:
    return [line for line in traceback.splitlines() if line.strip(" ^~")]


def _unprivileged_ports() -> int:
    """Return the first port that everybody may bind."""
    setting = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return int(setting.read_text()) if setting.exists() else 1024
