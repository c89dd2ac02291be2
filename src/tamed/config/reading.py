"""One reading of what the operator wrote: what a generation of workers is made from, for good.

The files and the environment are read once for each generation: by the command that starts a daemon, and by
the planner for a reload. There every setting is validated. From there the values travel as data, in the plan
and to each worker, which uses them. So a worker that takes another's place later, when the files may say
something else or nothing at all, is made from the same reading.

Two things are no part of it. Code is what Python imports when a worker loads. And the options of a service
are validated by its plugin, which only a process without privilege imports: what was given for them travels
as it is, and the worker is the one that reads it.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from tamed._os.limits import check_workers
from tamed._os.trust import TRUST_WRITABLE
from tamed.config.deployment import Deployment, read_env_file
from tamed.config.job import Job
from tamed.config.settings import Daemon, Log, Settings, names_file
from tamed.config.target import Target, TargetKind
from tamed.plugins.build import build

__all__ = ["Reading", "read_settings"]


class Reading(NamedTuple):
    """A job, and what its files and the environment said: the deployment, if the target is one, and settings.

    ``program`` is the application file, if the target is one, by the folder that it was in at that moment:
    one that is reached through a symbolic link stays the same when the link has moved.
    """

    job: Job
    deployment: Deployment | None
    settings: Settings
    program: str = ""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Read a job's deployment file and its settings.

        Raises what `Deployment.read` and `read_settings` do.
        """
        return cls._with(job, job.deployment())

    @classmethod
    def entering(cls, job: Job) -> Self:
        """Do the same for a daemon that this process starts, and set its environment: ``--env-file``.

        The variables of that file stand before those of the environment: they were written down for this very
        program. Workers inherit them and do not read the file, which may be for root alone; nor does a
        reload.
        """
        reading = cls.of(job)
        daemon = reading.settings.daemon
        if daemon.trust_writable:
            os.environ[TRUST_WRITABLE] = "1"
        if daemon.env_file is None:
            return reading
        os.environ.update(read_env_file(daemon.env_file))
        return cls._with(job._replace(environ=os.environ), reading.deployment)  # settings may stand in it

    @classmethod
    def _with(cls, job: Job, deployment: Deployment | None) -> Self:
        program = _resolved(job, job.target.name) if job.target.kind is TargetKind.FILE else ""
        return cls(job, deployment, read_settings(job, deployment), program)

    def to_data(self) -> dict[str, Any]:
        """Return what was read as plain data, for another process, which has the job by itself."""
        deployment = self.deployment
        return {
            "deployment": None if deployment is None else deployment.to_data(),
            "settings": self.settings.to_data(),
            "program": self.program,
        }

    @classmethod
    def from_data(cls, job: Job, data: Mapping[str, Any]) -> Self:
        """Return the reading that the data was made from; nothing is read or validated again."""
        text = data["deployment"]
        deployment = None if text is None else Deployment.from_data(text)
        return cls(job, deployment, Settings.from_data(data["settings"]), data["program"])

    @property
    def name(self) -> str:
        """What the run is called: as the operator says, or after its target."""
        return self.settings.daemon.name or self.job.name(self.deployment)

    @property
    def fixed_job(self) -> Job:
        """The job with the application file that was meant when it was read."""
        if not self.program:
            return self.job
        return self.job._replace(target=Target(TargetKind.FILE, self.program))


def read_settings(job: Job, deployment: Deployment | None) -> Settings:
    """Make the settings of a run from flags, environment and deployment file, in that order.

    Raises UsageError, or ConfigurationError for what is wrong in the environment or in the file.
    """
    table = deployment.daemon if deployment else {}
    daemon = build(Daemon, job.given("", job.daemon, deployment, "daemon", table))
    check_workers(daemon.workers or 1, yes=daemon.yes)
    table = _log_beside(deployment) if deployment else {}
    log = build(Log, job.given("log", job.log, deployment, "log", table, flag_prefix="log-"))
    return Settings(daemon, log)


def _log_beside(deployment: Deployment) -> Mapping[str, object]:
    """Return the table of the log with its file beside the deployment file, as all paths in that are."""
    file = deployment.log.get("file")
    if not isinstance(file, str) or not names_file(file):
        return deployment.log
    return {**deployment.log, "file": str(deployment.folder / file)}


def _resolved(job: Job, name: str) -> str:
    """Return a path that is the same file however links move; as it is written if no folder in it is one."""
    path = job.path(name)
    try:
        folder = path.parent.resolve()
        return name if folder == path.parent.absolute() else str(folder / path.name)
    except OSError:  # the current folder is gone: whoever opens the file finds that out
        return name
