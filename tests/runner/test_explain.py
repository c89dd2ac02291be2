import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tamed.config.job import Job, Reading, Target
from tamed.config.load import load
from tamed.errors import ApplicationFailed, ConfigurationError, ServiceFailed, TamedError
from tamed.ipc.fault import explain
from tamed.plugins.build import Given
from tamed.plugins.plugin import plugin
from tamed.service.application import Application
from tamed.service.service import Service
from tests.imports import forgetting_imports


def raised(call: Callable[[], object]) -> TamedError:
    """Return the error that a call raises."""
    with pytest.raises(TamedError) as caught:
        call()
    return caught.value


def files(lines: list[str]) -> list[str]:
    """Return the files of the frames in a traceback."""
    text = "\n".join(lines).splitlines()
    return [line.split('"')[1] for line in text if line.startswith("  File")]


def test_an_expected_error_is_one_line() -> None:
    """The line has the reason and the remedy."""
    error = ConfigurationError("verse.toml", "no\nway", "write another")
    assert list(explain(error)) == ["tamed: verse.toml: no way; write another"]


def test_an_application_file_that_raises_is_reported_with_its_own_lines(tmp_path: Path) -> None:
    """The traceback has neither our frames nor those of the standard library."""
    file = tmp_path / "raising_poem.py"
    file.write_text("import json\n\ndef title():\n    return json.loads('')\n\ntitle()\n")
    with forgetting_imports(tmp_path):
        error = raised(lambda: load(Reading.of(Job(Target.parse(str(file)), environ={}))))
    *traceback, line = explain(error)
    assert files(traceback) == [str(file)] * 2
    assert traceback[0].endswith("\njson.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)")
    assert line.startswith(f"tamed: {file} raised while it was loaded: JSONDecodeError")


def test_a_mistake_of_syntax_is_reported_where_it_is_alone(tmp_path: Path) -> None:
    """A syntax error has no frames of the user, and ours are not shown."""
    file = tmp_path / "unfinished_poem.py"
    file.write_text("def title(:\n")
    with forgetting_imports(tmp_path):
        error = raised(lambda: load(Reading.of(Job(Target.parse(str(file)), environ={}))))
    *traceback, line = explain(error)
    assert files(traceback) == [str(file)]
    assert line.startswith(f"tamed: {file} raised while it was loaded: SyntaxError")


class Failing(Service):
    def __init__(self, error: BaseException, *, later: bool = False) -> None:
        super().__init__("failing")
        self.error = error
        self.later = later

    async def start(self) -> None:
        if not self.later:
            raise self.error

    async def run(self) -> None:
        raise self.error


def failure(service: Service) -> TamedError:
    """Return the error that ends an application of this service."""

    async def run() -> None:
        application = Application("verse", service)
        async with application:
            await application.wait()

    return raised(lambda: asyncio.run(run()))


def test_a_start_that_raises_the_unexpected_is_reported_with_its_traceback() -> None:
    """The traceback includes causes, contexts and exceptions in a group."""
    cause = ExceptionGroup("several", [KeyError("a"), raised_by_json()])
    cause.__cause__ = raised_by_json()
    *traceback, line = explain(failure(Failing(cause)))
    assert set(files(traceback)) == {__file__}
    assert "JSONDecodeError" in traceback[0]
    assert "KeyError: 'a'" in traceback[0]
    assert line == "tamed: service failing failed in start: KeyError: 'a' (and 1 more)"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConfigurationError("poem", "too long"), "poem: too long"),
        (
            FileNotFoundError(2, "No such file or directory", "poem.txt"),
            "poem.txt: No such file or directory",
        ),
    ],
)
def test_a_start_that_says_what_is_wrong_needs_no_traceback(error: Exception, says: str) -> None:
    """An error of ours, or of the operating system, is shown without a traceback."""
    assert list(explain(failure(Failing(error)))) == [f"tamed: service failing failed in start: {says}"]


def test_what_the_log_has_reported_is_not_reported_again() -> None:
    """A body that failed beyond its policy was logged with its traceback before."""
    error = failure(Failing(KeyError("verse"), later=True))
    assert isinstance(error, ServiceFailed)
    assert list(explain(error)) == ["tamed: service failing failed in run: KeyError: 'verse'"]


def test_a_plugin_that_raises_is_reported_with_its_own_lines() -> None:
    """The traceback starts at the function that should have created the service."""

    @plugin
    def ode() -> Service:
        raise KeyError("verse")

    def make() -> None:
        try:
            ode.make(Given())
        except KeyError as error:
            raise ApplicationFailed("plugin ode raised") from error

    *traceback, line = explain(raised(make))
    assert set(files(traceback)) == {__file__}
    assert line == "tamed: plugin ode raised"


def test_a_mistake_of_ours_is_reported_whole() -> None:
    """If no frame is the user's, all frames are shown."""
    error = ApplicationFailed("verse")
    error.__cause__ = raised_by_json()
    error.__cause__.__traceback__ = error.__cause__.__traceback__ and error.__cause__.__traceback__.tb_next
    assert files(list(explain(error)))


def raised_by_json() -> ValueError:
    """Return an error with frames of the standard library."""
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads("")
    return caught.value
