"""A Python application by its name: how it is imported, and whether it speaks ASGI or WSGI."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tamed.builtin.web._wsgi import WsgiApplication
from tamed.errors import ApplicationFailed, ConfigurationError, MissingInput, reason

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["Interface", "as_asgi", "load"]

Interface = Literal["asgi", "wsgi"]


def load(name: str, folder: Path | None = None) -> Any:
    """Import ``package.module:variable`` and return what it is.

    ``folder`` is looked at last, so that nothing in it stands before an installed package. Raises
    ConfigurationError for a name that is not of this form, MissingInput if there is no such module, and
    ApplicationFailed, with what was raised as its cause, if it cannot be imported or has no such variable.
    """
    module_name, _, variable = name.partition(":")
    what = f"web application {name!r}"
    if not all(part.isidentifier() for part in (*module_name.split("."), *variable.split("."))):
        raise ConfigurationError(what, "expected PACKAGE.MODULE:VARIABLE")
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            remedy = "install it, or name the folder it is in with --app-dir"
            raise MissingInput(what, f"there is no module {missing!r}", remedy) from None
        raise ApplicationFailed(f"{module_name} raised while it was imported", reason(error)) from error
    for part in variable.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ApplicationFailed(what, f"{module_name} has no variable {variable!r}") from None
    if not callable(found):
        raise ApplicationFailed(what, f"it is {type(found).__name__}, and cannot be called")
    return found


def as_asgi(application: Any, interface: Interface | None, threads: int) -> "ASGI3Application":
    """Return an application as one that speaks ASGI 3; one that speaks WSGI runs in that many threads.

    Without an ``interface`` it is found out: see `interface_of`, also for what is raised.
    """
    if (interface or interface_of(application)) == "wsgi":
        return cast("ASGI3Application", WsgiApplication(application, threads))
    return cast("ASGI3Application", application)


def interface_of(application: Any) -> Interface:
    """Tell what an application speaks: ASGI if it is a coroutine function, or takes three arguments.

    One that takes two speaks WSGI. Raises ApplicationFailed for all others.
    """
    call = application if inspect.isroutine(application) else getattr(application, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(call):
        return "asgi"
    if _takes(application, 3):
        return "asgi"
    if _takes(application, 2):
        return "wsgi"
    raise ApplicationFailed(
        f"web application {application!r}", "it takes neither the arguments of ASGI nor of WSGI", "say --wsgi"
    )


def _takes(application: Any, arguments: int) -> bool:
    try:
        inspect.signature(application).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True
