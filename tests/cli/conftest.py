"""Fixtures that run the command in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tamed.cli.main import main
from tests.cli.outcomes import Done
from tests.imports import forgetting_imports

Tamed = Callable[..., Done]


@pytest.fixture
def tamed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Tamed]:
    """Return a function that runs the command; modules that it imports are forgotten afterwards."""

    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert isinstance(ended.value.code, int)
        return Done(int(ended.value.code), *capsys.readouterr())

    with forgetting_imports(tmp_path):
        yield run
