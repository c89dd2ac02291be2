"""The plan of a supervisor, handed over and stored."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tamed.errors import CannotCreate, ConfigurationError, MissingInput, PermissionRefused, TamedError
from tamed.log.plan import LogPlan
from tamed.supervisor.plan import Plan
from tamed.supervisor.plan_file import PlanFile, kept_plan, save_plan
from tamed.unix.rundir import RunDirectory

PLAN = Plan(
    name="poetry",
    job={"target": {"kind": "plugin", "name": "poetry"}},
    interpreter=["python", "-P"],
    worker_interpreter=["python", "-P"],
    reading={"program": ""},
    workers=4,
    log=LogPlan("file", path="/poetry.log", rotate=1000, every=3600.0, keep=None, compress=True),
    keep_capabilities=["CAP_NET_BIND_SERVICE"],
    interpreter_environ=["PYTHONHASHSEED=0"],
    max_files=1024,
    umask=0o077,
    watchdog=20.0,
    report=9,
    ops="127.0.0.1:9321",
    ops_agent="127.0.0.1:9322",
    ops_hosts=["ops.example"],
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def test_a_plan_is_handed_over_as_it_is() -> None:
    """The next program reads it from an inherited descriptor, and closes that."""
    descriptor = PLAN.hand_over()
    assert Plan.take_over(descriptor) == PLAN
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_descriptor_of_a_plan_survives_an_exec() -> None:
    """The descriptor is inheritable, unlike those that Python opens."""
    descriptor = PLAN.hand_over()
    assert os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_worker_sends_four_heartbeats_in_the_time_it_has_for_an_answer() -> None:
    """One late heartbeat does not end a worker."""
    assert PLAN.heartbeat_interval == 5.0


@pytest.fixture
def kept(tmp_path: Path) -> Plan:
    """A plan with a file of its own."""
    return PLAN._replace(plan_file=str(tmp_path / "poetry.plan"))


def test_a_plan_is_kept_for_a_restart(kept: Plan) -> None:
    """The plan is stored without its reading and its report; the file is removed at the daemon's end."""
    path = Path(kept.plan_file)
    file = PlanFile.write(kept)
    found = kept_plan(path, os.getpid())
    assert found._replace(holder="") == kept._replace(report=-1, reading=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.remove()
    assert not path.exists()


def test_a_plan_of_another_process_is_not_believed(kept: Plan) -> None:
    """A stale plan of another process is refused."""
    PlanFile.write(kept)
    with pytest.raises(PermissionRefused, match=f"not the plan of process {os.getppid()}, which runs"):
        kept_plan(Path(kept.plan_file), os.getppid())


def test_a_plan_in_a_folder_where_others_may_write_is_not_believed(kept: Plan) -> None:
    """Other users could have restored an older plan of this user."""
    path = Path(kept.plan_file)
    PlanFile.write(kept)
    path.parent.chmod(0o1777)
    with pytest.raises(PermissionRefused, match="or others, can write in"):
        kept_plan(path, os.getpid())


def test_a_file_that_was_left_behind_is_replaced(kept: Plan) -> None:
    """A killed daemon leaves such a file."""
    Path(kept.plan_file).write_text("left behind")
    PlanFile.write(kept)
    assert kept_plan(Path(kept.plan_file), os.getpid()).name == "poetry"


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_plan_is_not_replaced(kept: Plan, tmp_path: Path, kind: str) -> None:
    """A foreign file is not replaced, and the target of a link is unchanged."""
    path, other = Path(kept.plan_file), tmp_path / "other"
    other.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(other)
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    with pytest.raises(CannotCreate, match="the path exists and is not a regular file"):
        PlanFile.write(kept)
    assert other.read_text() == "precious"


def test_a_file_that_is_gone_is_made_anew(kept: Plan) -> None:
    """The creator writes the file again; a missing file at the end is no error."""
    path = Path(kept.plan_file)
    file = PlanFile.write(kept)
    assert not file.housekeep()
    path.unlink()
    assert file.housekeep()
    assert kept_plan(path, os.getpid()).name == "poetry"
    path.unlink()
    file.remove()


def test_the_folder_of_plans_may_be_removed_while_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that removes another plan, the last one in it, removes the folder: it is made again."""
    tmp_path.chmod(0o755)
    folder, open_it, removals = tmp_path / ".plans", os.open, iter([True, True])

    def open_late(path: Any, *arguments: Any, **more: Any) -> int:
        if path == folder / "verse.plan" and next(removals, False):
            folder.rmdir()
        return open_it(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_late)
    save_plan(RunDirectory(tmp_path).instance("verse"), "its text")
    assert (folder / "verse.plan").read_text() == "its text"


def test_a_plan_of_another_version_is_an_error(kept: Plan) -> None:
    """An unknown or damaged plan is an error."""
    path = Path(kept.plan_file)
    for text in ("{", '{"nonsense": 1}', "[]", '{"log": 3}'):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            kept_plan(path, os.getpid())


def test_a_plan_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "none" / "poetry.plan"
    with pytest.raises(CannotCreate, match=r"^plan .*poetry\.plan: "):
        PlanFile.write(PLAN._replace(plan_file=str(path)))


def test_without_a_file_there_is_no_starting_again(tmp_path: Path) -> None:
    """`tamed run` stores no plan, so it cannot be restarted."""
    with pytest.raises(MissingInput, match="it was not started by `tamed start`"):
        kept_plan(tmp_path / "poetry.plan", os.getpid())


def test_a_link_is_not_followed(kept: Plan, tmp_path: Path) -> None:
    """The directory's owner could lead root to another plan with a link."""
    real = tmp_path / "real"
    real.write_text(PLAN.to_text())
    Path(kept.plan_file).symlink_to(real)
    with pytest.raises(TamedError, match="run the command as the user who started it"):
        kept_plan(Path(kept.plan_file), os.getpid())


def test_a_file_with_another_name_is_not_believed(kept: Plan, tmp_path: Path) -> None:
    """A file with several links is refused."""
    path = Path(kept.plan_file)
    path.write_text(PLAN.to_text())
    (tmp_path / "another").hardlink_to(path)
    with pytest.raises(PermissionRefused):
        kept_plan(path, os.getpid())


def test_what_is_no_file_is_not_believed(kept: Plan) -> None:
    """Only regular files are read, and pipes do not block."""
    os.mkfifo(kept.plan_file)
    with pytest.raises(PermissionRefused):
        kept_plan(Path(kept.plan_file), os.getpid())


@AS_ROOT
def test_a_file_of_somebody_else_is_not_believed(kept: Plan) -> None:
    """A plan of another user is refused, also for root."""
    path = Path(kept.plan_file)
    path.write_text(PLAN.to_text())
    os.chown(path, 65534, 65534)
    with pytest.raises(PermissionRefused, match="user 65534 started it"):
        kept_plan(path, os.getpid())
