"""From a job to its application: the only place where code of the user's is imported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tamed.config._deployment import Deployment, Entry
from tamed.config._job import Job
from tamed.config._program import load_file, load_variable
from tamed.config._target import Target, TargetKind
from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, UsageError, reason
from tamed.plugins.build import Given
from tamed.plugins.plugin import Plugin
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.twisted import claim_reactor

__all__ = ["load"]


def load(job: Job, deployment: Deployment | None) -> Application:
    """Import the code that a job names, and make its application.

    ``sys.argv`` is the job's from then on.
    """
    claim_reactor()
    if job.argv:
        sys.argv[:] = job.argv
    if job.twistd:
        from tamed.twisted import apply_twistd

        apply_twistd(job.twistd["effects"])
    name = job.target.name
    match job.target.kind:
        case TargetKind.DEPLOYMENT:
            assert deployment is not None
            return Application(
                deployment.name, *(_of_entry(job, each, deployment) for each in deployment.services)
            )
        case TargetKind.FILE:
            return _without_options(job, load_file(job.path(name)))
        case TargetKind.MODULE:
            return _without_options(job, load_variable(name))
        case TargetKind.PLUGIN:
            service = _make(job.find(name), job.given(name, job.services.get(name, {})))
            return service if isinstance(service, Application) else Application(name, service)
        case TargetKind.TWISTED:
            from tamed.config._twisted import twisted_service

            return Application(name, twisted_service(job))


def _of_entry(job: Job, entry: Entry, deployment: Deployment) -> Service:
    """Make one service of a deployment."""
    section = f"services.{entry.name}"
    if entry.application is not None:
        with _found_in(f"{deployment.file}: {section}.application"):
            service: Service = _program(entry.application, deployment.folder)
    else:
        assert entry.plugin is not None
        with _found_in(f"{deployment.file}: {section}.plugin"):
            plugin = job.find(entry.plugin)
        flags = job.services.get(entry.name, {})
        given = job.given(entry.name, flags, deployment, section, entry.table, flag_prefix=f"{entry.name}.")
        service = _make(plugin, given)
    service.name = entry.name
    return service


def _without_options(job: Job, application: Application) -> Application:
    if any(job.services.values()):
        raise UsageError(f"target {job.target.name!r} takes no options", remedy="put Tamed's own before it")
    return application


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
