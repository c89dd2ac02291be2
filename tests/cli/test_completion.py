from pathlib import Path

import pytest

from tamed.builtin.fastpoetry import fastpoetry
from tests.cli.conftest import Tamed

ODE = "from tamed import Service, plugin\n@plugin\ndef ode() -> Service:\n    return Service('ode')\n"


def complete(tamed: Tamed, *words: str) -> set[str]:
    """Return the completions of the last of these words, without their explanations."""
    status, out, err = tamed("__complete", "zsh", *words)
    assert (status, err) == (0, "")
    return {line.partition("\t")[0] for line in out.splitlines()}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ru"], {"run"}),
        (["--ver"], {"--version"}),
        (["stop", "--f"], {"--force"}),
        (["run", "fastpo"], {"fastpoetry", ":file"}),
        (["run", "--log-fo"], {"--log-format"}),
        (["run", "--log-format", "j"], {"json"}),
        (["run", "--log-format=j"], {"--log-format=json"}),
        (["run", "--plugin-dir", "p"], {":folder"}),
        (["run", "--env-file="], {":file"}),
        (["run", "--preloa"], {"--preload"}),
        (["run", "--preload="], set()),
        (["run", "fastpoetry", "--por"], {"--port", "--port2"}),
        (["run", "fastpoetry", "--poem", "e"], {":file"}),
        (["run", "fastpoetry", "-p", "1", "--i"], {"--iface"}),
        (["run", "no-such-plugin", "--po"], set()),
        (["run", "--no-such-option", "--po"], set()),
        (["no-such-command", "--po"], set()),
        (["run", "no-such-file.toml", "--po"], set()),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["completion", "bash", ""], set()),
        (["twistd", "--no"], {":file"}),
        (["scale", ""], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_are_completed(tamed: Tamed, words: list[str], offered: set[str]) -> None:
    """Commands, options with their values, targets, and the options of the target are offered."""
    assert complete(tamed, *words) == offered


def test_commands_are_offered_with_what_they_do(tamed: Tamed) -> None:
    """The explanation follows a tab, as fish and zsh expect."""
    assert "stop\tStop an instance and wait until it has drained.\n" in tamed("__complete", "zsh", "").out


@pytest.mark.parametrize(
    ("line", "part", "offered"),
    [
        ("tamed ru", "ru", "run\n"),
        ("tamed run --log-format=j", "j", "json\n"),
        ("tamed run --log-format=", "", "auto\nhuman\nplain\njson\n"),
        ("tamed run fastpoetry --poem 'a b' --i", "--i", "--iface\n"),
        ("tamed run fastpoetry --poem a\\ b --i", "--i", "--iface\n"),
        ("tamed run 'fastpo", "fastpo", "fastpoetry\n:file\n"),
        ('tamed run "fastpo', "fastpo", "fastpoetry\n:file\n"),
        ("tamed run tamed:fastpoetry --i", "--i", "--iface\n"),
        ("tamed completion ", "", "bash\nzsh\nfish\n"),
    ],
)
def test_the_line_of_bash_is_split_as_bash_does(tamed: Tamed, line: str, part: str, offered: str) -> None:
    """In bash, words end at ``=`` and ``:``, so only the part after these is offered."""
    status, out, err = tamed("__complete", "bash", line, part)
    assert (status, err) == (0, "")
    assert "".join(f"{each.partition(chr(9))[0]}\n" for each in out.splitlines()) == offered


def test_plugins_of_folders_are_completed(tamed: Tamed, tmp_path: Path) -> None:
    """Plugins are offered without importing them; an unreadable folder is ignored."""
    (tmp_path / "ode.py").write_text(ODE)
    (tmp_path / "odd.py").write_text("raise SystemExit('imported')")
    assert complete(tamed, "run", "--plugin-dir", str(tmp_path), "od") == {"ode", "odd", ":file"}
    assert complete(tamed, "run", "--plugin-dir", f"{tmp_path}/none", "o") == {":file"}


def test_options_of_a_deployment_are_completed(tamed: Tamed, tmp_path: Path) -> None:
    """The options of a deployment are offered under the names of its services."""
    file = tmp_path / "verse.toml"
    file.write_text('[services.ecstasy]\nplugin = "fastpoetry"\n')
    assert complete(tamed, "run", str(file), "--ec") == {
        f"--ecstasy.{option.key}" for option in fastpoetry.describe()
    }
