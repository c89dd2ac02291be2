"""The command lines of every day, read without the command-line library.

Its import, and sixty options made for it, would take a quarter of the time from ``tamed run`` to the first
client. So ``run`` and ``start`` are read here, as far as all is plain: flags that exist, each with its value,
a target, and flags of its own. Whatever is not (a mistake, a request for help, flags run together) is left to
the commands, where there is one place that explains. Both read the same; a test holds that.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from tamed._os.trust import TRUST_WRITABLE
from tamed.config.job import Job
from tamed.config.kinds import resolve
from tamed.config.settings import Daemon, Log
from tamed.config.target import TargetKind
from tamed.plugins.describe import Option, describe
from tamed.plugins.discovery import plugin_folders

__all__ = [
    "ALIASES",
    "DAEMON_OPTIONS",
    "JOBS",
    "PLUGIN_DIR",
    "OfService",
    "folders",
    "quick_job",
    "run_job",
    "services",
    "start_job",
    "trust_if_told",
]


class _NotPlain(Exception):
    """The commands shall read this command line."""


class _Flag(NamedTuple):
    """Gives a value to one option of one group: the value that follows it, or if it needs none, this one."""

    group: str
    name: str
    value: bool | None = None
    is_repeatable: bool = False


def quick_job(words: Sequence[str]) -> Job | None:
    """Return the job for what stands behind ``run`` or ``start``; None if the commands shall read it."""
    try:
        return _job(words)
    except _NotPlain:
        return None


def _job(words: Sequence[str]) -> Job:
    flags = {PLUGIN_DIR: _Flag("plugins", "dirs", is_repeatable=True)}
    for prefix, options in DAEMON_OPTIONS:
        flags |= _flags(prefix, options, prefix, ALIASES)
    given, rest = _read(words, flags)
    if not rest:
        raise _NotPlain
    target, *own = rest
    trust_if_told(given.get("", {}))
    dirs = folders(given.get("plugins", {}).get("dirs", ()))
    job = Job(resolve(target, dirs), given.get("", {}), given.get("log-", {}), plugin_dirs=dirs)
    return _with_options(job, own) if own else job


def _with_options(job: Job, words: Sequence[str]) -> Job:
    if job.target.kind is TargetKind.FOREIGN:
        raise _NotPlain
    several = list(services(job))
    flags = dict(
        chain.from_iterable(_flags(each.name, each.options, each.prefix).items() for each in several)
    )
    given, rest = _read(words, flags)
    if rest:
        raise _NotPlain
    return job._replace(services={each.name: given.get(each.name, {}) for each in several})


def _flags(
    group: str, options: Sequence[Option], prefix: str, aliases: Mapping[str, str] = {}
) -> dict[str, _Flag]:
    """Return what each flag of some options does."""
    return dict(_each_flag(group, options, prefix, aliases))


def _each_flag(
    group: str, options: Sequence[Option], prefix: str, aliases: Mapping[str, str]
) -> Iterator[tuple[str, _Flag]]:
    for option in options:
        flag = _Flag(group, option.name, True if option.boolean else None, option.repeatable)
        yield f"--{prefix}{option.key}", flag
        if option.boolean:
            yield f"--{prefix}no-{option.key}", flag._replace(value=False)
        if option.short and not prefix:
            yield option.short, flag
        if (alias := aliases.get(f"{prefix}{option.key}")) is not None:
            yield alias, flag


def _read(
    words: Sequence[str], flags: Mapping[str, _Flag]
) -> tuple[dict[str, dict[str, Any]], Sequence[str]]:
    """Read flags up to the first other word; return what they give, by group and name, and the rest."""
    given: dict[str, dict[str, Any]] = {}
    rest = list(reversed(words))
    while rest and rest[-1].startswith("-"):
        word, equals, value = rest.pop().partition("=")
        flag = flags.get(word)
        if flag is None or (equals and (flag.value is not None or not word.startswith("--"))):
            raise _NotPlain
        values = given.setdefault(flag.group, {})
        if flag.value is not None:
            values[flag.name] = flag.value
            continue
        if not equals:
            value = _value(rest)
        values[flag.name] = [*values.get(flag.name, ()), value] if flag.is_repeatable else value
    return given, rest[::-1]


def _value(rest: list[str]) -> str:
    if not rest or rest[-1].startswith("-"):
        raise _NotPlain
    return rest.pop()


DAEMON_OPTIONS: Final[tuple[tuple[str, tuple[Option, ...]], ...]] = (
    ("", describe(Daemon)),
    ("log-", describe(Log)),
)
"""The options of the tables ``[daemon]`` and ``[log]``, each with what stands before its name in the flag."""

ALIASES: Final = {"log-file": "--log"}
"""Other flags for some of them."""

PLUGIN_DIR: Final = "--plugin-dir"


def folders(named: Iterable[str]) -> tuple[Path, ...]:
    """Return the plugin folders: those named on the command line, and those of the environment."""
    return plugin_folders(named, os.environ)


def trust_if_told(daemon: Mapping[str, object]) -> None:
    """Heed ``--trust-writable`` from now on, here and in all processes of the daemon: files are read next."""
    if daemon.get("trust_writable"):
        os.environ[TRUST_WRITABLE] = "1"


class OfService(NamedTuple):
    """One service of a target: what it is, its options with the prefix of their flags, what a file says."""

    name: str
    title: str
    options: Sequence[Option]
    prefix: str = ""
    table: Mapping[str, object] = {}


def services(job: Job) -> Iterator[OfService]:
    """Yield the services of a target that have options: one of a plugin, several of a deployment."""
    if job.target.kind is TargetKind.PLUGIN:
        plugin = job.find(job.target.name)
        yield OfService(job.target.name, plugin.description, plugin.describe())
    deployment = job.deployment()
    for entry in deployment.services if deployment else ():
        if entry.plugin is not None:
            title = f"{entry.name}, made by {entry.plugin}"
            yield OfService(
                entry.name, title, job.find(entry.plugin).describe(), f"{entry.name}.", entry.table
            )


def run_job(job: Job) -> int:
    """Run a job in the foreground; return its exit status."""
    from tamed.control.launch import run  # not above: help and completion need not load the event loop

    return run(job._replace(argv=tuple(sys.argv))).status


def start_job(job: Job) -> int:
    """Start a job as a daemon, say what became of it, and return the status that tells."""
    from tamed.control.launch import start

    report = start(job._replace(argv=tuple(sys.argv), detached=True))
    print(report.text, file=sys.stdout if report.ready else sys.stderr)
    return report.status


JOBS: Final[Mapping[str, Callable[[Job], int]]] = {"run": run_job, "start": start_job}
"""The commands that take a job and do nothing else, by their names."""
