import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tamed.errors import ApplicationFailed, UsageError
from tamed.plugins.build import Given
from tamed.plugins.option import option
from tamed.plugins.plugin import NoOptions, Plugin, plugin
from tamed.plugins.values import Duration
from tamed.service.service import Service


@dataclass
class Options:
    port: int = option(10000, "The port.")
    wait: Duration = option(Duration("30s"), "How long.")


class Poetry(Service):
    def __init__(self, options: Options) -> None:
        super().__init__("poetry")
        self.options = options


@plugin
def fast_poetry(options: Options) -> Service:
    """Serve poetry, fast.

    It is fast.
    """
    return Poetry(options)


without_options = plugin(name="nothing")(lambda: Service("nothing"))


def test_a_plugin_is_made_of_what_its_function_says() -> None:
    """Name, description, options and maker come from the function."""
    assert isinstance(fast_poetry, Plugin)
    assert fast_poetry.name == "fast-poetry"
    assert fast_poetry.description == "Serve poetry, fast."
    assert fast_poetry.options_type is Options
    assert [each.flag for each in fast_poetry.describe()] == ["--port", "--wait"]


def test_a_plugin_may_have_a_name_of_its_own_and_no_options() -> None:
    """Without a parameter the plugin has no options; without a docstring no description."""
    assert (without_options.name, without_options.description) == ("nothing", "")
    assert without_options.options_type is NoOptions
    assert without_options.describe() == ()
    assert without_options().name == "nothing"
    assert without_options.make(Given()).name == "nothing"
    with pytest.raises(UsageError, match="unknown option --port; it has no options"):
        without_options.make(Given(flags={"port": "1"}))


def test_calling_a_plugin_calls_its_function() -> None:
    """A test needs only the plugin and an options object."""
    options = Options(port=0)
    service = fast_poetry(options)
    assert isinstance(service, Poetry)
    assert service.options is options


def test_a_plugin_makes_its_service_from_what_was_given() -> None:
    """One call builds the options and makes the service."""
    service = fast_poetry.make(Given(flags={"port": "7"}, table={"wait": "5m"}))
    assert isinstance(service, Poetry)
    assert service.options == Options(port=7, wait=Duration(300))


def test_what_the_function_raises_goes_through() -> None:
    """An exception of the plugin propagates unchanged."""

    @plugin
    def broken() -> Service:
        raise LookupError("no poem")

    with pytest.raises(LookupError, match="no poem"):
        broken()


@pytest.mark.parametrize(("made", "noun"), [(None, "None"), ("x", "a str"), (Options(), "an options")])
def test_what_is_no_service_is_refused(made: object, noun: str) -> None:
    """The error names the plugin and the type of the result."""

    def poem() -> Any:
        return made

    with pytest.raises(
        ApplicationFailed, match=f"^plugin poem: it made {noun}, not a service; return a Service$"
    ):
        plugin(poem)()


class Unfit:
    """Functions that cannot be plugins."""

    @staticmethod
    async def coroutine() -> Any: ...
    @staticmethod
    async def async_generator() -> AsyncIterator[Any]:
        yield

    @staticmethod
    def generator() -> Iterator[Any]:
        yield

    @staticmethod
    def two(options: Options, more: int) -> Any: ...
    @staticmethod
    def keyword(*, options: Options) -> Any: ...
    @staticmethod
    def rest(*options: Options) -> Any: ...
    @staticmethod
    def unannotated(options): ...  # type: ignore[no-untyped-def]
    @staticmethod
    def _() -> Any: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (Unfit.coroutine, "plugin coroutine: it is async or a generator"),
        (Unfit.async_generator, "plugin async-generator: it is async or a generator"),
        (Unfit.generator, "plugin generator: it is async or a generator"),
        (Unfit.two, "plugin two: its function takes options: .*Options, more: int; take one parameter"),
        (Unfit.keyword, "plugin keyword: its function takes options"),
        (Unfit.rest, r"plugin rest: its function takes \*options"),
        (Unfit.unannotated, "plugin unannotated: its parameter 'options' has no annotation"),
        (Unfit._, "plugin '': its name must consist of letters, digits and single dashes"),
        (Options, "it is not a function"),
    ],
)
def test_a_function_that_cannot_be_a_plugin_is_refused(function: Any, says: str) -> None:
    """The error is raised where the module is imported."""
    with pytest.raises(ApplicationFailed, match=says):
        plugin(function)


@pytest.mark.parametrize("name", ["a b", "a/b", "a.py", "a:b", "-a", "a--b", "é"])
def test_a_name_that_is_something_else_on_the_command_line_is_refused(name: str) -> None:
    """A plugin's name cannot look like a file, a module or an option."""
    with pytest.raises(ApplicationFailed, match="its name must consist of letters, digits and single dashes"):
        plugin(name=name)(without_options.maker)


def test_an_annotation_that_is_no_class_is_refused() -> None:
    """The error shows the annotation."""

    def poem(options: Options | None) -> Any:
        pass

    with pytest.raises(ApplicationFailed, match="its parameter 'options' is annotated with"):
        _ = plugin(poem).options_type


def test_annotations_may_be_texts(tmp_path: Path) -> None:
    """The options class may be defined later, and the service imported for type checking only."""
    (tmp_path / "late.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import TYPE_CHECKING\n"
        "from tamed.plugins.plugin import plugin\n"
        "if TYPE_CHECKING:\n    from tamed.service import Service, Unknown\n"
        "@plugin\ndef good(options: Options) -> Service: ...\n"
        "@plugin\ndef bad(options: Unknown) -> Service: ...\n"
        "@dataclass\nclass Options:\n    port: int = 1\n"
        "print(good.describe()[0].flag)\n"
        "try:\n    bad.describe()\nexcept Exception as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, tmp_path / "late.py"], capture_output=True, text=True, check=True
    ).stdout
    flag, error = out.splitlines()
    assert flag == "--port"
    assert error == (
        "plugin bad: the annotation of its parameter 'options' cannot be resolved:"
        " NameError: name 'Unknown' is not defined;"
        " define or import the options class at the top of the module, not only under TYPE_CHECKING"
    )
