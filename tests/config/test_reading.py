"""Reading a job's files once, as data."""

import json
from pathlib import Path
from typing import Any

import pytest

from tamed.config.deployment import Deployment
from tamed.config.job import Job, Reading, Target
from tamed.config.settings import Daemon
from tamed.errors import MissingInput, UsageError
from tamed.plugins.describe import describe

TEXT = """
name = "verse"
[daemon]
directory = "sub"
drain-timeout = "1.5s"
umask = "0077"
keep-capability = ["CAP_NET_RAW"]
workers = 3
preload = true
[log]
level = ["info", "tamed.net=debug"]
file = "verse.log"
rotate = "10 MB"
[services.a]
plugin = "ode"
born = 1572-01-22
"""


def through_json(reading: Reading) -> Reading:
    """Return the reading that another process has."""
    data: dict[str, Any] = json.loads(json.dumps(reading.to_data()))
    return Reading.from_data(reading.job, data)


def test_a_reading_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Settings with units, types that JSON lacks, and the resolved folder survive."""
    (tmp_path / "41" / "sub").mkdir(parents=True)
    (tmp_path / "current").symlink_to("41")
    file = tmp_path / "current" / "verse.toml"
    file.write_text(TEXT)
    environ = {"TAMED_WATCHDOG": "1m500ms", "TAMED_LOG_KEEP": "3"}
    job = Job(Target.parse(str(file)), daemon={"max_files": "99"}, environ=environ)
    reading = Reading.of(job)
    (tmp_path / "current").unlink()
    again = through_json(reading)
    assert again == reading
    assert again.deployment is not None
    assert again.deployment.folder == tmp_path / "41"
    assert again.settings.daemon.directory == tmp_path / "41" / "sub"


def test_a_deployment_that_the_command_has_read_is_not_read_again(tmp_path: Path) -> None:
    """The selected services are those whose options were read; a reload reads the file again."""
    (tmp_path / "sub").mkdir()
    file = tmp_path / "verse.toml"
    file.write_text(TEXT)
    job = Job(Target.parse(str(file)), environ={})
    job = job._replace(known=job.deployment())
    file.unlink()
    assert Reading.of(job).deployment == job.known
    with pytest.raises(MissingInput):
        Reading.of(Job.from_data(job.to_data()))


def test_every_path_is_one_in_another_process(tmp_path: Path) -> None:
    """Paths are texts in JSON, and paths again afterwards."""
    flags = {option.name: str(tmp_path) for option in describe(Daemon) if option.reader.path}
    reading = Reading.of(Job(Target.parse("ode"), daemon=flags, environ={}))
    assert through_json(reading) == reading


def test_settings_of_another_version_are_passed_over() -> None:
    """A worker of the previous program can be replaced by one of the next program."""
    reading = Reading.of(Job(Target.parse("ode"), environ={}))
    data = reading.to_data()
    data["settings"]["daemon"]["of_tomorrow"] = "1"
    del data["settings"]["log"]["keep"]
    assert Reading.from_data(reading.job, data) == reading


def test_an_application_file_stays_the_one_that_was_meant(tmp_path: Path) -> None:
    """Links in the folder are resolved; a path without links is unchanged."""
    (tmp_path / "41").mkdir()
    (tmp_path / "current").symlink_to("41")
    for folder, fixed in (("current", "41"), ("41", "41")):
        job = Job(Target.parse(f"{tmp_path}/{folder}/app.py"), environ={})
        assert Reading.of(job).fixed_job.target.name == f"{tmp_path}/{fixed}/app.py"
    assert Reading.of(Job(Target.parse("app.py"), environ={})).fixed_job.target.name == "app.py"


def test_a_deployment_is_the_same_as_data() -> None:
    """The text is enough to restore the deployment."""
    deployment = Deployment.parse(TEXT, Path("/etc/verse.toml"))
    assert Deployment.from_data(deployment.to_data()) == deployment


def test_services_are_chosen_by_name(tmp_path: Path) -> None:
    """Another process with the same text has the same services in the same order."""
    names = ("a", "b", "c")
    file = tmp_path / "verse.toml"
    file.write_text("".join(f'[services.{name}]\nplugin = "ode"\n' for name in names))
    target = Target.parse(str(file))
    for given, chosen in ((["c", "a"], ["a", "c"]), ([], list(names))):
        reading = Reading.of(Job(target, daemon={"service": given}, environ={}))
        for each in (reading, through_json(reading)):
            assert each.deployment is not None
            assert [entry.name for entry in each.deployment.services] == chosen
    with pytest.raises(
        UsageError, match=r"--service d: .* has no service of this name; known services: a, b, c"
    ):
        Reading.of(Job(target, daemon={"service": ["d"]}, environ={}))
    with pytest.raises(UsageError, match="--service a: only a deployment file has services"):
        Reading.of(Job(Target.parse("fastpoetry"), daemon={"service": ["a"]}, environ={}))
