"""Checking a job: its settings, its services and their addresses, without running or binding anything.

Of servers with the same address, only those count that conflict on every machine. Host names are compared as
texts, because they are not resolved here. Port 0 and inherited sockets never conflict.
"""

import os
from collections.abc import Iterator
from itertools import combinations
from typing import Final

from tamed.config.job import Ask, Job, Reading
from tamed.config.load import load
from tamed.config.settings import Daemon, Log, Settings
from tamed.errors import ApplicationFailed, ConfigurationError, Errors, exit_code
from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import ListeningService
from tamed.service.application import Application

__all__ = ["check"]

_ENV_FILE: Final = {"env_file", "env-file", "TAMED_ENV_FILE"}
_LOCALHOST: Final = ("127.0.0.1", "::1")


def check(job: Job, ask: Ask) -> Application:
    """Return the application of a job.

    Raises the first error that a run would raise before it listens, or `ConfigurationError` if two servers
    want the same address. The error has all the ``others``: a wrong setting in a deployment file does not
    hide wrong options of its services, unless their values are in an environment file.
    """
    errors = Errors()
    application = Application(job.target.name)
    for reading in _readings(job, ask, errors):
        with errors:
            application = _load(reading)
    for conflict in _conflicts(application):
        errors.add(conflict)
    errors.raise_first()
    return application


def _load(reading: Reading) -> Application:
    """Load an application. ``sys.exit`` while loading would end a run silently; in a check it is an error."""
    try:
        return load(reading)
    except SystemExit as ended:
        raise ApplicationFailed(f"{ended.__notes__[0]}, with status {exit_code(ended)}") from None


def _readings(job: Job, ask: Ask, errors: Errors) -> list[Reading]:
    """Return the reading of a job; if its settings are invalid, one with the default settings."""
    job = job._replace(known=job.deployment())
    with errors:
        return [Reading.entering(job, ask)]
    if job.known is None or not _ENV_FILE.isdisjoint({*job.daemon, *job.known.daemon, *job.environ}):
        return []
    answers = dict.fromkeys(job.prompts(job.known), "")  # answers given before the error are lost
    return [Reading(job._replace(answers=answers), job.known, Settings(Daemon(), Log()))]


def _conflicts(application: Application) -> Iterator[ConfigurationError]:
    """Yield an error for each two servers that cannot both listen."""
    wanted = [
        (service.full_name, service.socket_kind, endpoint)
        for service in application.walk()
        if isinstance(service, ListeningService)
        for endpoint in service.endpoints
    ]
    for (one, kind, endpoint), (other, other_kind, other_endpoint) in combinations(wanted, 2):
        if kind is other_kind and _is_same(endpoint, other_endpoint):
            why = f"{one} listens on {endpoint}"
            yield ConfigurationError(
                f"{other} cannot listen on {other_endpoint}", why, "choose another address"
            )


def _is_same(one: Endpoint, other: Endpoint) -> bool:
    match one, other:
        case UnixEndpoint(), UnixEndpoint():
            return _path(one) == _path(other)
        case ((TcpEndpoint() | TlsEndpoint()), (TcpEndpoint() | TlsEndpoint())):
            return one.port == other.port != 0 and _overlap(one.host, other.host)
    return False


def _path(endpoint: UnixEndpoint) -> str:
    return endpoint.path if endpoint.abstract else os.path.normpath(endpoint.path)


def _overlap(one: str, other: str) -> bool:
    """Return whether two hosts share an address; an empty one is every address of both families."""
    if one == other or not (one and other):
        return True
    for host, another in ((one, other), (other, one)):
        if host == "localhost" and another in _LOCALHOST:
            return True
        if host == "0.0.0.0" and ":" not in another:  # noqa: S104 - it is compared, not bound
            return True
        if host == "::" and (":" in another or another == "localhost"):
            return True
    return False
