"""The plugin contract: a named way to make a service from options."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, overload

from tamed._os.text import noun
from tamed.errors import ApplicationFailed, reason
from tamed.plugins.build import Given, build
from tamed.plugins.describe import Option, describe

if TYPE_CHECKING:
    from tamed.service.service import Service

__all__ = ["NoOptions", "Plugin", "plugin"]


P = ParamSpec("P")

_NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


@dataclass(eq=False, repr=False)
class NoOptions:
    """The options of a plugin that has none."""


class Plugin(Generic[P]):
    """A named way to make a service from options. Made by ``plugin``.

    Calling it calls its function with the same arguments, so a plugin can be tested like a function:
    ``fastpoetry(Options(port=0))``.

    ``name`` is its name on the command line (letters, digits and dashes), ``description`` the first line of
    the function's docstring (empty without one), and ``maker`` the function.
    """

    def __init__(self, name: str, description: str, maker: "Callable[P, Service]") -> None:
        self.name = name
        self.description = description
        self.maker = maker

    def __repr__(self) -> str:
        return f"<Plugin {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> "Service":
        """Make the service. Exceptions of the function propagate.

        Raises ApplicationFailed when the function does not return a service.
        """
        from tamed.service.service import (
            Service,  # lazy import: listing the names of plugins must not load it
        )

        service = self.maker(*args, **kwargs)
        if not isinstance(service, Service):
            raise ApplicationFailed(
                f"plugin {self.name}",
                f"it made {noun(type(service).__name__)}, not a service",
                "return a Service",
            )
        return service

    def renamed(self, name: str) -> "Plugin[P]":
        """Return the same plugin under another name."""
        return Plugin(name, self.description, self.maker)

    @property
    def options_type(self) -> type:
        """The options class: the annotation of the function's parameter.

        ``NoOptions`` for a function without one. Raises ApplicationFailed when the annotation cannot be
        resolved.
        """
        parameter = _parameter(self.name, self.maker)
        return NoOptions if parameter is None else _resolved(self.name, self.maker, parameter)

    def describe(self) -> tuple[Option, ...]:
        """Describe its options. Raises as ``tamed.plugins.describe`` does."""
        return describe(self.options_type)

    def make(self, given: Given) -> "Service":
        """Make the service from the values given. Raises as ``tamed.plugins.build`` does."""
        options: object = build(self.options_type, given)
        # The parameter's type is known only at run time; `_parameter` has checked that there is at most one.
        call: Callable[..., Service] = self
        return call() if isinstance(options, NoOptions) else call(options)


@overload
def plugin(maker: "Callable[P, Service]", /) -> Plugin[P]: ...
@overload
def plugin(*, name: str) -> "Callable[[Callable[P, Service]], Plugin[P]]": ...
def plugin(maker: "Callable[P, Service] | None" = None, /, *, name: str = "") -> Any:
    """Make a plugin of a function, as ``@plugin`` or ``@plugin(name="fast-poetry")``.

    The function takes one parameter, annotated with an options class (a dataclass, see ``option``), or
    none, and returns a service. The plugin's name is the function's, with dashes for underscores; its
    description is the first line of the docstring. The annotation is resolved when the options are first
    needed, so the options class may be defined further down.

    Raises ApplicationFailed when the name or the parameters are invalid.
    """
    if maker is None:
        return lambda function: _declare(function, name)
    return _declare(maker, name)


def _declare(maker: "Callable[P, Service]", name: str) -> Plugin[P]:
    if not inspect.isfunction(maker):
        raise ApplicationFailed(f"@plugin on {maker!r}", "it is not a function", "decorate a function")
    name = name or maker.__name__.strip("_").replace("_", "-")
    if not _NAME.fullmatch(name):
        raise ApplicationFailed(
            f"plugin {name!r}",
            "its name must consist of letters, digits and single dashes",
            'write @plugin(name="…")',
        )
    if (
        inspect.iscoroutinefunction(maker)
        or inspect.isgeneratorfunction(maker)
        or inspect.isasyncgenfunction(maker)
    ):
        raise ApplicationFailed(
            f"plugin {name}", "it is async or a generator", "let a plain function return the service"
        )
    _parameter(name, maker)
    description = next(iter((inspect.getdoc(maker) or "").splitlines()), "")
    return Plugin(name, description, maker)


def _parameter(name: str, maker: Callable[..., object]) -> inspect.Parameter | None:
    """Return the parameter that takes the options; None when there is none."""
    parameters = list(inspect.signature(maker).parameters.values())
    if not parameters:
        return None
    first = parameters[0]
    if len(parameters) > 1 or first.kind not in {first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD}:
        raise ApplicationFailed(
            f"plugin {name}",
            f"its function takes {', '.join(map(str, parameters))}",
            "take one parameter, the options, or none",
        )
    if first.annotation is first.empty:
        raise ApplicationFailed(
            f"plugin {name}",
            f"its parameter {first.name!r} has no annotation",
            "annotate it with the options class",
        )
    return first


def _resolved(name: str, maker: Callable[..., object], parameter: inspect.Parameter) -> type:
    """Resolve this annotation only: the return type may be imported for type checking only."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, inspect.unwrap(maker).__globals__)  # noqa: S307 - the plugin's own text
        except Exception as error:  # a text may be anything
            raise ApplicationFailed(
                f"plugin {name}",
                f"the annotation of its parameter {parameter.name!r} cannot be resolved: {reason(error)}",
                "define or import the options class at the top of the module, not only under TYPE_CHECKING",
            ) from error
    if not isinstance(annotation, type):
        raise ApplicationFailed(
            f"plugin {name}",
            f"its parameter {parameter.name!r} is annotated with {annotation!r}, not a class",
        )
    return annotation
