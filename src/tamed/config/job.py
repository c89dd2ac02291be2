"""The configuration of one run: a job, as it was given, and its reading, the validated values.

A job is the command line as plain data: the program to run, and its options. A reading is fixed for one
generation of workers. The files and the environment are read once for each generation: by the command that
starts a daemon, and by the planner for a reload. They validate every setting and pass the values on as data,
in the plan and to each worker. So a replacement worker has the same reading as the rest of its generation,
even if the files have changed or are gone.

Two things are not part of a reading. Code: Python imports it when a worker loads. The options of a service:
only an unprivileged process may import their plugin, which validates them, so they are passed on as given,
and the worker reads them.
"""

import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeAlias

from tamed._os.limits import check_workers
from tamed._os.trust import TRUST_WRITABLE
from tamed.config.deployment import Deployment, read_env_file
from tamed.config.settings import Daemon, Log, Settings, names_file
from tamed.errors import Errors, UsageError, from_os_error
from tamed.plugins.build import PROMPT, Given, build
from tamed.plugins.describe import variable_of
from tamed.plugins.discovery import find
from tamed.plugins.plugin import Plugin

__all__ = ["Ask", "Job", "Reading", "Target", "TargetKind", "read_settings"]

_NOTHING: Final[Mapping[str, Any]] = {}

Ask: TypeAlias = Callable[[str], str]
"""Prompts for the secret of this name; raises a TamedError if there is no terminal."""


class TargetKind(enum.Enum):
    """The kinds of target."""

    PLUGIN = "plugin"
    FILE = "application file"
    MODULE = "module variable"
    DEPLOYMENT = "deployment file"
    FOREIGN = "program of another framework"


class Target(NamedTuple):
    """A target: its kind and its name.

    ``name`` is the path of a file, ``package.module:variable``, or the name of a plugin. ``prefix`` is the
    prefix of the kind of a FOREIGN target (`tamed.config.kinds`).
    """

    kind: TargetKind
    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Decide a target's kind from its spelling alone; no file need exist. Never returns FOREIGN.

        ``*.toml`` is a deployment file; ``*.py``, ``*.tac`` (and ``*.tap``, which is refused when it is
        loaded) and any other text with a slash is an application file; ``tamed:NAME`` is a plugin,
        ``MODULE:VARIABLE`` is a variable in a module, and any other text a plugin.
        """
        if text.endswith(".toml"):
            return cls(TargetKind.DEPLOYMENT, text)
        if text.endswith((".py", ".tac", ".tap", ".tas")) or "/" in text:
            return cls(TargetKind.FILE, text)
        head, colon, tail = text.partition(":")
        if colon and head != "tamed":
            return cls(TargetKind.MODULE, text)
        return cls(TargetKind.PLUGIN, tail if colon else text)


class Job(NamedTuple):
    """One run: a target, and its options as given.

    ``daemon`` and ``log`` are the flags of `Daemon` and `Log`, and ``services`` those of each service by
    its name; a plugin that is run by its name is a service of that name. ``plugin_dirs`` are searched for
    plugins before the installed distributions. ``words`` are the words after the name of a Twisted plugin,
    which parses them itself, and ``foreign`` is a parsed command line of another framework, for its `Kind`.
    ``detached`` is True for a daemon; plugins of Twisted may ask for it.
    Relative paths in target and flags start in ``folder``; None is the current working directory.
    ``argv`` is the command line that the application sees in ``sys.argv``, in every process that loads it;
    if it is empty, ``sys.argv`` does not change. ``known`` is the deployment, if this process has read it
    already. ``answers`` are the secrets that the user typed, by the variables of their options: they are not
    part of the job's data.
    """

    target: Target
    daemon: Mapping[str, object] = _NOTHING
    log: Mapping[str, object] = _NOTHING
    services: Mapping[str, Mapping[str, object]] = _NOTHING
    plugin_dirs: tuple[Path, ...] = ()
    words: tuple[str, ...] = ()
    foreign: Mapping[str, Any] = _NOTHING
    folder: Path | None = None
    argv: tuple[str, ...] = ()
    detached: bool = False
    environ: Mapping[str, str] = os.environ
    known: Deployment | None = None
    answers: Mapping[str, str] = _NOTHING

    def __repr__(self) -> str:
        return f"<Job {self.target.name}>"  # flags and environment may hold secrets

    def to_data(self) -> dict[str, Any]:
        """Return the job as plain data, for another process; the environment is that process's own."""
        return {
            "target": self.target._asdict() | {"kind": self.target.kind.value},
            "daemon": dict(self.daemon),
            "log": dict(self.log),
            "services": {name: dict(flags) for name, flags in self.services.items()},
            "plugin_dirs": [str(folder) for folder in self.plugin_dirs],
            "words": list(self.words),
            "foreign": dict(self.foreign),
            "folder": None if self.folder is None else str(self.folder),
            "argv": list(self.argv),
            "detached": self.detached,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Job":
        """Return the job that the data was made from."""
        target = Target(TargetKind(data["target"]["kind"]), data["target"]["name"], data["target"]["prefix"])
        folders = tuple(Path(folder) for folder in data["plugin_dirs"])
        return cls(
            target,
            data["daemon"],
            data["log"],
            data["services"],
            folders,
            tuple(data["words"]),
            data["foreign"],
            None if data["folder"] is None else Path(data["folder"]),
            tuple(data["argv"]),
            data["detached"],
        )

    def name(self, deployment: Deployment | None) -> str:
        """Return the default name of the run: that of its deployment, plugin, file or module."""
        if deployment is not None:
            return deployment.name
        if self.target.kind is TargetKind.FILE:
            return Path(self.target.name).stem
        return self.target.name.partition(":")[0]

    def deployment(self) -> Deployment | None:
        """Return the deployment, if the target is one; read the file if it is not known yet."""
        if self.target.kind is not TargetKind.DEPLOYMENT:
            return None
        return self.known or Deployment.read(self.path(self.target.name))

    def prompts(self, deployment: Deployment | None) -> dict[str, str]:
        """Return the options with ``prompt:`` as their value: their variables, each with a display name.

        Sources have the precedence of `tamed.plugins.build`: flags, then the environment, then the file.
        """
        found: dict[str, tuple[object, str]] = {}
        for entry in deployment.services if deployment else ():
            for key, value in entry.table.items():
                found[variable_of(entry.name, key)] = value, f"{entry.name}.{key}"
        for name, value in self.environ.items():
            if name.startswith("TAMED_"):
                found[name] = value, found[name][1] if name in found else name
        for service, flags in self.services.items():
            for name, value in flags.items():
                found[variable_of(service, name)] = value, f"{service}.{name.strip('_').replace('_', '-')}"
        return {variable: label for variable, (value, label) in found.items() if value == PROMPT}

    def find(self, name: str) -> Plugin[...]:
        """Find a plugin by its name, and import only that one."""
        return find(name, self.plugin_dirs)

    def path(self, path: str) -> Path:
        """Return a path; a relative one is joined to the job's folder."""
        return Path(path) if self.folder is None else self.folder / path

    def given(
        self,
        service: str,
        flags: Mapping[str, object],
        deployment: Deployment | None = None,
        section: str = "",
        table: Mapping[str, object] = _NOTHING,
        *,
        flag_prefix: str = "",
    ) -> Given:
        """Return the values given for the options of a service, or for one of Tamed's own tables."""
        return Given(
            service=service,
            flags=flags,
            flag_prefix=flag_prefix,
            environ=self.environ,
            table=table,
            file=str(deployment.file) if deployment else "",
            section=section,
            flags_folder=self.folder,
            file_folder=deployment.folder if deployment else None,
            answers=self.answers,
        )


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
