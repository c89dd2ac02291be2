"""A job: all that was said about one run, as plain data, and how an application comes from it.

A job holds what was *given*, not what was made of it: every process that runs it (and every generation
after a reload) reads the files and imports the code anew.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

from tamed.config._deployment import Deployment, Entry
from tamed.config._program import load_file, load_variable
from tamed.config._settings import Daemon, Log, Settings, names_file
from tamed.config._target import Target, TargetKind
from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, UsageError, reason
from tamed.plugins import Given, Plugin, build, find
from tamed.service import Application, Service
from tamed.twisted import claim_reactor

__all__ = ["Job"]

_NOTHING: Final[Mapping[str, Any]] = {}


class Job(NamedTuple):
    """One run: a target, and what was given for it.

    ``daemon`` and ``log`` are the flags of `Daemon` and `Log`, and ``services`` those of each service by
    its name; a plugin that is run by its name is a service of that name. ``plugin_dirs`` are looked through
    for plugins before what is installed. ``words`` are those behind the name of a Twisted plugin, which
    parses them itself, and ``twistd`` what `tamed.twisted.apply_twistd` is to do before code is loaded.
    Relative paths in target and flags start in ``folder``; None is the working directory, wherever that is.
    """

    target: Target
    daemon: Mapping[str, object] = _NOTHING
    log: Mapping[str, object] = _NOTHING
    services: Mapping[str, Mapping[str, object]] = _NOTHING
    plugin_dirs: tuple[Path, ...] = ()
    words: tuple[str, ...] = ()
    twistd: Mapping[str, object] = _NOTHING
    folder: Path | None = None
    environ: Mapping[str, str] = os.environ

    def __repr__(self) -> str:
        return f"<Job {self.target.name}>"  # flags and environment may hold secrets

    def to_data(self) -> dict[str, Any]:
        """Return the job as plain data, for another process; the environment is that process's own."""
        return {
            "target": {"kind": self.target.kind.value, "name": self.target.name},
            "daemon": dict(self.daemon),
            "log": dict(self.log),
            "services": {name: dict(flags) for name, flags in self.services.items()},
            "plugin_dirs": [str(folder) for folder in self.plugin_dirs],
            "words": list(self.words),
            "twistd": dict(self.twistd),
            "folder": None if self.folder is None else str(self.folder),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Job":
        """Return the job that the data was made from."""
        target = Target(TargetKind(data["target"]["kind"]), data["target"]["name"])
        folders = tuple(Path(folder) for folder in data["plugin_dirs"])
        return cls(
            target,
            data["daemon"],
            data["log"],
            data["services"],
            folders,
            tuple(data["words"]),
            data["twistd"],
            None if data["folder"] is None else Path(data["folder"]),
        )

    def name(self, deployment: Deployment | None) -> str:
        """Return what the run is called unless somebody names it.

        After its deployment, plugin, file or module.
        """
        if deployment is not None:
            return deployment.name
        if self.target.kind is TargetKind.FILE:
            return Path(self.target.name).stem
        return self.target.name.partition(":")[0]

    def deployment(self) -> Deployment | None:
        """Read the deployment file, if the target is one."""
        if self.target.kind is not TargetKind.DEPLOYMENT:
            return None
        return Deployment.read(self._path(self.target.name))

    def settings(self, deployment: Deployment | None) -> Settings:
        """Make the settings of the run from flags, environment and deployment file, in that order."""
        daemon = deployment.daemon if deployment else {}
        log = _log_beside(deployment) if deployment else {}
        return Settings(
            build(Daemon, self._given("", self.daemon, deployment, "daemon", daemon)),
            build(Log, self._given("log", self.log, deployment, "log", log, flag_prefix="log-")),
        )

    def load(self, deployment: Deployment | None) -> Application:
        """Import the code and make the application: the only place where code of the user's is imported."""
        claim_reactor()
        if self.twistd:
            from tamed.twisted import apply_twistd

            apply_twistd(self.twistd)
        name = self.target.name
        match self.target.kind:
            case TargetKind.DEPLOYMENT:
                assert deployment is not None
                services = (self._service(entry, deployment) for entry in deployment.services)
                return Application(deployment.name, *services)
            case TargetKind.FILE:
                return self._without_options(load_file(self._path(name)))
            case TargetKind.MODULE:
                return self._without_options(load_variable(name))
            case TargetKind.PLUGIN:
                service = _make(self.find(name), self._given(name, self.services.get(name, _NOTHING)))
                return service if isinstance(service, Application) else Application(name, service)
            case TargetKind.TWISTED:
                return Application(name, self._twisted())

    def find(self, name: str) -> Plugin[...]:
        """Find a plugin by its name; import it and no other."""
        return find(name, self.plugin_dirs)

    def _twisted(self) -> Service:
        """Make the service of a Twisted plugin, whose words may have relative paths in them."""
        from tamed.twisted import make_plugin

        with nullcontext() if self.folder is None else chdir(self.folder):
            return make_plugin(self.target.name, self.words, self.plugin_dirs)

    def _path(self, path: str) -> Path:
        return Path(path) if self.folder is None else self.folder / path

    def _service(self, entry: Entry, deployment: Deployment) -> Service:
        section = f"services.{entry.name}"
        if entry.application is not None:
            with _found_in(f"{deployment.file}: {section}.application"):
                service: Service = _program(entry.application, deployment.folder)
        else:
            assert entry.plugin is not None
            with _found_in(f"{deployment.file}: {section}.plugin"):
                plugin = self.find(entry.plugin)
            flags = self.services.get(entry.name, _NOTHING)
            given = self._given(
                entry.name, flags, deployment, section, entry.table, flag_prefix=f"{entry.name}."
            )
            service = _make(plugin, given)
        service.name = entry.name
        return service

    def _given(
        self,
        service: str,
        flags: Mapping[str, object],
        deployment: Deployment | None = None,
        section: str = "",
        table: Mapping[str, object] = _NOTHING,
        *,
        flag_prefix: str = "",
    ) -> Given:
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
        )

    def _without_options(self, application: Application) -> Application:
        if any(self.services.values()):
            raise UsageError(
                f"target {self.target.name!r} takes no options", remedy="put Tamed's own before it"
            )
        return application


def _log_beside(deployment: Deployment) -> Mapping[str, object]:
    """Return the table of the log with its file beside the deployment file, as all paths in that are."""
    file = deployment.log.get("file")
    if not isinstance(file, str) or not names_file(file):
        return deployment.log
    return {**deployment.log, "file": str(deployment.folder / file)}


def _make(plugin: Plugin[...], given: Given) -> Service:
    try:
        return plugin.make(given)
    except TamedError:
        raise
    except Exception as error:
        raise ApplicationFailed(
            f"plugin {plugin.name} raised while it made its service", reason(error)
        ) from error


def _program(text: str, folder: Path) -> Application:
    target = Target.parse(text)
    match target.kind:
        case TargetKind.FILE:
            return load_file(folder / target.name)
        case TargetKind.MODULE:
            return load_variable(target.name)
        case _:
            raise UsageError(
                f"{text!r} is a {target.kind.value}", "expected FILE.py or PACKAGE.MODULE:VARIABLE"
            )


@contextmanager
def _found_in(place: str) -> Iterator[None]:
    """Make of a mistake on the command line one in a deployment file, if that is where it was found."""
    try:
        yield
    except UsageError as error:
        raise ConfigurationError(f"{place}: {error.what}", error.why, error.remedy) from error
