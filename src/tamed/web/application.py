"""A web application: importing or creating it, and detecting its interface."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, Literal, cast

from tamed._os.variables import VariableName, missing_module
from tamed.errors import ApplicationFailed, ConfigurationError, MissingInput, reason
from tamed.log.logger import exit_logged, own_logger
from tamed.web.asgi import ASGIApplication
from tamed.web.wsgi import WsgiApplication

__all__ = ["Interface", "as_asgi", "interface_of", "load"]

log = own_logger("web")

Interface = Literal["asgi", "wsgi"]


def load(name: str, folder: Path | None = None, *, factory: bool = False) -> Any:
    """Import ``package.module:variable`` and return its value, or the result of calling it.

    It is called without arguments if ``factory`` is set, or if the name ends in ``()``. ``folder`` is
    searched last, so that it cannot hide an installed package. Raises ConfigurationError for a name of
    another form, MissingInput if there is no such module, and ApplicationFailed, with the exception as its
    cause, if it cannot be imported, has no such variable, or cannot be called.
    """
    what = f"web application {name!r}"
    variable = name.removesuffix("()")
    try:
        wanted = VariableName.parse(variable)
    except ValueError as error:
        raise ConfigurationError(what, str(error)) from None
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        with exit_logged(log, wanted.module, "while it was imported"):
            module = importlib.import_module(wanted.module)
    except Exception as error:
        if missing := missing_module(error, wanted.module):
            remedy = "install it, or add its folder with --app-dir"
            raise MissingInput(what, f"there is no module {missing!r}", remedy) from None
        raise ApplicationFailed(f"{wanted.module} raised while it was imported", reason(error)) from error
    try:
        found = wanted.value_in(module)
    except AttributeError:
        raise ApplicationFailed(what, f"{wanted.module} has no variable {wanted.variable!r}") from None
    if factory or variable != name:
        found = _made(what, found)
    if not callable(found):
        raise ApplicationFailed(what, f"it is {type(found).__name__}, which cannot be called")
    return found


def _made(what: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        raise ApplicationFailed(f"the factory of {what} raised", reason(error)) from error


def as_asgi(application: Any, interface: Interface | None = None, threads: int = 10) -> ASGIApplication:
    """Return an application in the form of ASGI 3; a WSGI application runs in ``threads`` threads.

    Without ``interface`` it is detected; then raises as `interface_of` does.
    """
    if (interface or interface_of(application)) == "wsgi":
        return WsgiApplication(application, threads)
    return cast(ASGIApplication, application)


def interface_of(application: Any) -> Interface:
    """Detect an application's interface: ASGI if it is a coroutine function, or takes three arguments.

    With two arguments it is WSGI. Raises ApplicationFailed for all others.
    """
    call = application if inspect.isroutine(application) else getattr(application, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(call):
        return "asgi"
    if _takes(application, 3):
        return "asgi"
    if _takes(application, 2):
        return "wsgi"
    remedy = "if it returns the application, use --factory" if _takes(application, 0) else "use --wsgi"
    raise ApplicationFailed(
        f"web application {application!r}", "its parameters are neither those of ASGI nor of WSGI", remedy
    )


def _takes(application: Any, arguments: int) -> bool:
    try:
        inspect.signature(application).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True
