"""The files that an application was made from: modules, the deployment file, and files that options name."""

import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from tamed.config.deployment import Deployment
from tamed.config.job import Job

__all__ = ["own_files"]


def own_files(job: Job, deployment: Deployment | None) -> dict[str, int]:
    """Return when each was written last, in nanoseconds, by its absolute path.

    Modules of Python itself and of installed packages are none of them.
    """
    found = {*_modules(), *_named(job, deployment)}
    if deployment is not None:
        found.add(deployment.file)
    return {str(file.absolute()): file.stat().st_mtime_ns for file in found if file.is_file()}


def _modules() -> Iterator[Path]:
    installed = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    folders = [Path(folder) for folder in installed]
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not any(Path(file).is_relative_to(folder) for folder in folders):
            yield Path(file)


def _named(job: Job, deployment: Deployment | None) -> Iterator[Path]:
    """Yield what options may name: it is a file, or it is no path."""
    folder = job.folder or Path.cwd()
    yield folder / job.target.name.partition(":")[0]
    yield from _paths_in(job.services, folder)
    if deployment is not None:
        for entry in deployment.services:
            yield from _paths_in(entry.table, deployment.folder)


def _paths_in(value: object, folder: Path) -> Iterator[Path]:
    match value:
        case Mapping():
            for each in value.values():
                yield from _paths_in(each, folder)
        case list() | tuple():
            for each in value:
                yield from _paths_in(each, folder)
        case str() if 0 < len(value) < 4096 and "\0" not in value:
            yield folder / value
