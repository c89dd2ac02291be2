"""The command, run in this process."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tamed.cli import main


class Done(NamedTuple):
    """What became of a command."""

    status: int
    out: str
    err: str


Tamed = Callable[..., Done]


@pytest.fixture
def tamed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Tamed]:
    """Return a function that runs the command; what it imports is forgotten at the end."""
    path, modules = sys.path.copy(), sys.modules.copy()

    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert isinstance(ended.value.code, int)
        return Done(int(ended.value.code), *capsys.readouterr())

    yield run
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
