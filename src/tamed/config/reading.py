"""A reading of the configuration: the fixed settings of one generation of workers.

The files and the environment are read once for each generation: by the command that starts a daemon, and by
the planner for a reload. They validate every setting and pass the values on as data, in the plan and to each
worker. So a replacement worker has the same reading as the rest of its generation, even if the files have
changed or are gone.

Two things are not part of it. Code: Python imports it when a worker loads. The options of a service: only an
unprivileged process may import their plugin, which validates them, so they are passed on as given, and the
worker reads them.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

from tamed._os.limits import check_workers
from tamed._os.trust import TRUST_WRITABLE
from tamed.config.deployment import Deployment, read_env_file
from tamed.config.job import Job, Target, TargetKind
from tamed.config.settings import Daemon, Log, Settings, names_file
from tamed.errors import Errors, UsageError, from_os_error
from tamed.plugins.build import build

__all__ = ["Ask", "Reading", "read_settings"]

Ask: TypeAlias = Callable[[str], str]
"""Prompts for the secret of this name; raises a TamedError if there is no terminal."""


class Reading(NamedTuple):
    """A job with its deployment (None for other targets) and its settings, as read at one moment.

    ``program`` is the path of the application file, if the target is one, with the links in its folder
    resolved at that moment: so it stays the same file when a link changes.
    """

    job: Job
    deployment: Deployment | None
    settings: Settings
    program: str = ""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read a job's deployment file and its settings.

        Raises as `Deployment.read` and `read_settings` do, and if the working directory cannot be entered.
        """
        return cls._with(job, job.deployment())

    @classmethod
    def entering(cls, job: Job, ask: Ask) -> Self:
        """Read as `of`, for a daemon that this process starts, and apply ``--env-file`` to its environment.

        ``ask`` is called with the name of each secret to prompt for, and returns the secret.

        The variables of that file override the environment, because they were written for this program.
        Workers inherit them; neither they nor a reload read the file, which may be readable by root only.
        """
        reading = cls.of(job)
        daemon = reading.settings.daemon
        if daemon.trust_writable:
            os.environ[TRUST_WRITABLE] = "1"
        if daemon.env_file is not None:
            os.environ.update(read_env_file(daemon.env_file))
            job = job._replace(environ=os.environ)
            reading = cls._with(job, reading.deployment)  # the file may contain settings
        prompts = job.prompts(reading.deployment)
        answers = {variable: ask(name) for variable, name in prompts.items()}
        return reading._replace(job=job._replace(answers=answers)) if answers else reading

    @classmethod
    def _with(cls, job: Job, deployment: Deployment | None) -> Self:
        program = _resolved(job, job.target.name) if job.target.kind is TargetKind.FILE else ""
        settings = read_settings(job, deployment)
        if settings.daemon.directory is not None:
            _require_directory(job.path(str(settings.daemon.directory)))
        return cls(job, _with_services_of(settings, deployment), settings, program)

    def to_data(self) -> dict[str, Any]:
        """Return the reading, without the job, as plain data, for another process that has the job."""
        deployment = self.deployment
        return {
            "deployment": None if deployment is None else deployment.to_data(),
            "settings": self.settings.to_data(),
            "program": self.program,
        }

    @classmethod
    def from_data(cls, job: Job, data: Mapping[str, Any]) -> Self:
        """Return the reading that `to_data` was called on; nothing is read or validated again."""
        text, settings = data["deployment"], Settings.from_data(data["settings"])
        deployment = None if text is None else Deployment.from_data(text)
        return cls(job, _with_services_of(settings, deployment), settings, data["program"])

    @property
    def name(self) -> str:
        """The name of the run: the one in the settings, or that of its target."""
        return self.settings.daemon.name or self.job.name(self.deployment)

    @property
    def fixed_job(self) -> Job:
        """The job with the application file of the reading."""
        if not self.program:
            return self.job
        return self.job._replace(target=Target(TargetKind.FILE, self.program))


def read_settings(job: Job, deployment: Deployment | None) -> Settings:
    """Make the settings of a run from flags, environment and deployment file, in that order.

    Raises UsageError for a wrong flag, and ConfigurationError for the environment or the file; the first has
    the others.
    """
    daemon, log = Daemon(), Log()
    errors = Errors()
    with errors:
        table = deployment.daemon if deployment else {}
        daemon = build(Daemon, job.given("", job.daemon, deployment, "daemon", table))
        check_workers(daemon.workers or 1, yes=daemon.yes)
        if daemon.cluster:
            from tamed.cluster.engine import open_engine  # lazy import: most daemons have no cluster

            open_engine(daemon.cluster)  # only to validate it
    with errors:
        table = _log_beside(deployment) if deployment else {}
        log = build(Log, job.given("log", job.log, deployment, "log", table, flag_prefix="log-"))
    errors.raise_first()
    return Settings(daemon, log)


def _log_beside(deployment: Deployment) -> Mapping[str, object]:
    """Return the table of the log with its file relative to the deployment file, as all paths there are."""
    file = deployment.log.get("file")
    if not isinstance(file, str) or not names_file(file):
        return deployment.log
    return {**deployment.log, "file": str(deployment.folder / file)}


def _with_services_of(settings: Settings, deployment: Deployment | None) -> Deployment | None:
    """Return the deployment with the selected services only."""
    names = settings.daemon.service
    if deployment is not None:
        return deployment.only(names)
    if names:
        raise UsageError(f"--service {names[0]}", "only a deployment file has services to choose from")
    return None


def _require_directory(path: Path) -> None:
    """Raise a TamedError for a working directory that this process cannot enter."""
    try:
        os.close(os.open(f"{path}/.", os.O_PATH))  # the dot requires the permission to enter it
    except OSError as error:
        raise from_os_error(f"directory {path}", error, "create it, or use another one") from error


def _resolved(job: Job, name: str) -> str:
    """Return the path with the links in its folder resolved; unchanged if there are none."""
    path = job.path(name)
    try:
        folder = Path(os.path.realpath(path.parent))  # `Path.resolve` may raise RuntimeError
        return name if folder == path.parent.absolute() else str(folder / path.name)
    except OSError:  # the current folder is gone: opening the file will fail
        return name
