"""A job: the command line of one run, as plain data: the program to run, and its options.

A job has the options as they were *given*. The validated values are a `Reading`, and every generation of
workers has its own reading.
"""

import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tamed.config.deployment import Deployment
from tamed.plugins.build import Given
from tamed.plugins.describe import variable_of
from tamed.plugins.discovery import find
from tamed.plugins.plugin import Plugin
from tamed.plugins.references import PROMPT

__all__ = ["Job", "Target", "TargetKind"]

_NOTHING: Final[Mapping[str, Any]] = {}


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
