"""One reading of what the operator wrote: what a generation of workers is made from, for good.

Whoever brings a generation up reads the files and the environment once. A worker that takes another's place
later, when the files may say something else or nothing at all, is made from the same reading. Code is no part
of it: that is what Python imports when a worker loads.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from tamed._os.trust import TRUST_WRITABLE
from tamed.config.deployment import Deployment, read_env_file
from tamed.config.job import Job
from tamed.config.settings import Daemon, Log, Settings
from tamed.config.target import Target, TargetKind
from tamed.plugins.build import Given, build

__all__ = ["Reading", "enter_environment"]


O = TypeVar("O", Daemon, Log)  # noqa: E741 - a table of options


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
    def of(cls, job: Job, deployment: Deployment | None) -> "Reading":
        """Read what has yet to be read. Raises what `Job.settings` does."""
        program = _resolved(job, job.target.name) if job.target.kind is TargetKind.FILE else ""
        return cls(job, deployment, job.settings(deployment), program)

    def to_data(self) -> dict[str, Any]:
        """Return what was read as plain data, for another process, which has the job by itself."""
        deployment = self.deployment
        return {
            "deployment": None if deployment is None else deployment.to_data(),
            "daemon": _as_flags(self.settings.daemon),
            "log": _as_flags(self.settings.log),
            "program": self.program,
        }

    @classmethod
    def from_data(cls, job: Job, data: Mapping[str, Any]) -> "Reading":
        """Return the reading that the data was made from; nothing is read anew."""
        told = data["deployment"]
        deployment = None if told is None else Deployment.from_data(told)
        settings = Settings(_from_flags(Daemon, data["daemon"]), _from_flags(Log, data["log"]))
        return cls(job, deployment, settings, data["program"])

    @property
    def fixed_job(self) -> Job:
        """The job with the application file that was meant when it was read."""
        if not self.program:
            return self.job
        return self.job._replace(target=Target(TargetKind.FILE, self.program))


def _resolved(job: Job, name: str) -> str:
    """Return a path that is the same file however links move; as it is written if no folder in it is one."""
    path = job.path(name)
    try:
        folder = path.parent.resolve()
        return name if folder == path.parent.absolute() else str(folder / path.name)
    except OSError:  # the current folder is gone: whoever opens the file finds that out
        return name


def _as_flags(options: Daemon | Log) -> dict[str, object]:
    """Return settings as the flags that would give them: those have a text for every value."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: _as_flag(value) for name, value in values.items() if value is not None}


def _as_flag(value: object) -> object:
    if isinstance(value, list):
        return [str(each) for each in value]
    return value if isinstance(value, bool) else str(value)


def _from_flags(options_type: type[O], flags: Mapping[str, object]) -> O:
    """Make settings from their flags; those of another version are passed over."""
    known = {field.name for field in fields(options_type)}
    return build(options_type, Given(flags={name: flags[name] for name in flags if name in known}))


def enter_environment(job: Job, deployment: Deployment | None) -> Job:
    """Take the variables of ``--env-file`` into this process; return the job as it is with them.

    They go before what is in the environment: they were written down for this very program. Workers inherit
    them, and do not read the file, which may be for root alone.
    """
    daemon = job.settings(deployment).daemon
    if daemon.trust_writable:
        os.environ[TRUST_WRITABLE] = "1"
    file = daemon.env_file
    if file is None:
        return job
    os.environ.update(read_env_file(file))
    return job._replace(environ=os.environ)
