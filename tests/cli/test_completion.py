import shutil
import subprocess
from pathlib import Path

import pytest

from tamed.builtin.fastpoetry import fastpoetry
from tests.cli.conftest import Tamed

ODE = "from tamed import Service, plugin\n@plugin\ndef ode() -> Service:\n    return Service('ode')\n"


def complete(tamed: Tamed, monkeypatch: pytest.MonkeyPatch, *words: str) -> set[str]:
    """Return what bash is offered for the last of these words."""
    monkeypatch.setenv("_TAMED_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["tamed", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    status, out, err = tamed()
    assert (status, err) == (0, "")
    return set(out.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(tamed: Tamed, shell: str) -> None:
    """It asks the command itself what there is, and is one that the shell can read."""
    status, out, err = tamed("completion", shell)
    assert (status, err) == (0, "")
    assert f"_TAMED_COMPLETE={shell}_complete" in out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=out, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ru"], {"plain,run"}),
        (["run", "fastpo"], {"plain,fastpoetry", "file,fastpo"}),
        (["run", "--log-fo"], {"plain,--log-format"}),
        (["run", "--log-format", "j"], {"plain,json"}),
        (["run", "--plugin-dir", "p"], {"file,p"}),
        (["run", "fastpoetry", "--por"], {"plain,--port", "plain,--port2"}),
        (["run", "fastpoetry", "--poem", "e"], {"file,e"}),
        (["run", "fastpoetry", "-p", "1", "--i"], {"plain,--iface"}),
        (["run", "no-such-plugin", "--po"], set()),
        (["no-such-command", "--po"], set()),
        (["run", "no-such-file.toml", "--po"], set()),
        (["completion", ""], {"plain,bash", "plain,zsh", "plain,fish"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_are_completed(
    tamed: Tamed, monkeypatch: pytest.MonkeyPatch, words: list[str], offered: set[str]
) -> None:
    """Commands, options, choices, plugins, files, and the options of the target."""
    assert complete(tamed, monkeypatch, *words) == offered


def test_plugins_of_folders_are_completed(
    tamed: Tamed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without importing them; and a folder that cannot be read is none of the shell's business."""
    (tmp_path / "ode.py").write_text(ODE)
    (tmp_path / "odd.py").write_text("raise SystemExit('imported')")
    words = ["run", "--plugin-dir", str(tmp_path), "od"]
    assert complete(tamed, monkeypatch, *words) == {"plain,ode", "plain,odd", "file,od"}
    assert complete(tamed, monkeypatch, "run", "--plugin-dir", f"{tmp_path}/none", "o") == {"file,o"}


def test_options_of_a_deployment_are_completed(
    tamed: Tamed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under the names of its services."""
    file = tmp_path / "verse.toml"
    file.write_text('[services.ecstasy]\nplugin = "fastpoetry"\n')
    assert complete(tamed, monkeypatch, "run", str(file), "--ec") == {
        f"plain,--ecstasy.{option.key}" for option in fastpoetry.describe()
    }
