"""The modules that commands load: few, because shells, scripts and people wait for them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fresh import loaded_by

HEAVY = {"collections", "enum", "functools", "json", "pathlib", "re", "shlex", "socket", "typing"}
RUN = """
import os
kept, sys.stdout = sys.stdout, open(os.devnull, "w")
from tamed.cli.main import main
try:
    main({words})
except SystemExit:
    sys.stdout = kept
"""


def loaded_by_command(*words: str) -> set[str]:
    """Return the modules that a command loads."""
    return loaded_by(RUN.format(words=list(words)))


def test_the_version_loads_nothing_else() -> None:
    """`tamed --version` loads its entry point and the version."""
    loaded = loaded_by_command("--version")
    ours = {"tamed", "tamed._os", "tamed._os.beginning", "tamed._version", "tamed.cli", "tamed.cli.main"}
    assert {name for name in loaded if name.startswith("tamed")} == ours
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "words",
    [("zsh", "sta"), ("zsh", "stop", "--f"), ("bash", "tamed completion ", ""), ("fish", "tamed --v")],
    ids=" ".join,
)
def test_completion_of_commands_and_options_loads_the_command_line_only(words: Sequence[str]) -> None:
    """Completion loads only the modules that declare and parse commands."""
    loaded = loaded_by_command("__complete", *words)
    assert {name.partition(".")[2] for name in loaded if name.startswith("tamed.")} == {
        "_os",
        "_os.beginning",
        "_os.text",
        "_version",
        "cli",
        "cli._instance_commands",
        "cli.commands",
        "cli.completion",
        "cli.grammar",
        "cli.main",
        "errors",
    }
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("command", [("reload",), ("reopen",), ("upgrade",), ("scale", "2")], ids=" ".join)
def test_a_request_to_an_instance_loads_nothing_that_starts_one(
    command: Sequence[str], tmp_path: Path
) -> None:
    """The daemon does the work, so the command needs no settings, plugins or event loop."""
    loaded = loaded_by_command(*command, "nobody", "--rundir", str(tmp_path))
    assert "tamed.control.instances" in loaded
    starting = {"tamed.config", "tamed.plugins", "tamed.control.launch", "tamed.unix.detach", "asyncio"}
    assert loaded & starting == set()
