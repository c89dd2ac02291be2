from pathlib import Path

from tamed.net.reply import ReplyServer
from tamed.testing.process import StartProcess, end_instances
from tamed.testing.running import StartService
from tests.fresh import loaded_by
from tests.process.conftest import LISTENING
from tests.supervised.daemon import is_there

POEM = b"The rest is silence.\n"


def test_a_service_is_started_for_a_test(tamed_service: StartService) -> None:
    """On a free port, with its own type."""
    poetry = tamed_service(ReplyServer("127.0.0.1:10000", lambda _: POEM))
    other = tamed_service(ReplyServer("127.0.0.1:10000", lambda _: POEM[::-1]))
    assert (poetry.fetch(), other.fetch()) == (POEM, POEM[::-1])
    assert poetry.service.accepted == 1


def test_a_process_is_started_for_a_test(tamed_process: StartProcess, tmp_path: Path) -> None:
    """In the test's own folder, with the environment that it asks for."""
    (tmp_path / "poem.txt").write_bytes(POEM)
    process = tamed_process("run", "fastpoetry", "--poem", "poem.txt", env={"TAMED_FASTPOETRY_PORT": "0"})
    assert process.expect(LISTENING)
    assert Path(f"/proc/{process.pid}/cwd").resolve() == tmp_path.resolve()


def test_daemons_are_found_and_ended(tamed_process: StartProcess, tmp_path: Path) -> None:
    """Those that the test has started: they are in a run directory of its own."""
    started = tamed_process("start", "fastpoetry", "--port", "0")
    pid = int(started.expect(r"fastpoetry is ready: pid (\d+)")[1])
    assert started.wait() == 0
    end_instances(tmp_path / "run")
    assert not is_there(pid)


def test_the_plugin_is_light() -> None:
    """It is loaded in every test run of an environment with Tamed in it."""
    ours = {name for name in loaded_by("import tamed.testing.pytest_plugin") if name.startswith("tamed")}
    assert ours == {"tamed", "tamed._version", "tamed.testing", "tamed.testing.pytest_plugin"}
