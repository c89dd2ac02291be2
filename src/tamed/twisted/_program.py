"""What a Twisted program has in its variable ``application``, as a service of Tamed's."""

from typing import Any

from tamed.errors import ApplicationFailed
from tamed.service.service import Service

__all__ = ["as_service", "explain_reactor"]


def as_service(value: Any, name: str) -> Service | None:
    """Return the service for a Twisted application or service; None for anything else."""
    from twisted.application.service import IService

    from tamed.twisted._service import TwistedService

    if IService(value, None) is None:
        return None
    return TwistedService(value, getattr(IService(value), "name", None) or name)


def explain_reactor(what: str, error: BaseException) -> ApplicationFailed | None:
    """Return what to say of a program that has tried to install a reactor of its own; None if it did not."""
    from twisted.internet.error import ReactorAlreadyInstalledError

    if not isinstance(error, ReactorAlreadyInstalledError):
        return None
    return ApplicationFailed(
        what,
        "it installs a reactor of its own, and Tamed runs Twisted on its own event loop",
        "leave that out; --loop chooses the loop",
    )
