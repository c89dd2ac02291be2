"""Completion as a user sees it: shells in a terminal, with the Tab key."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import Self

import pytest

from tests.supervised.daemon import Tamed

PROMPT = "ready> "
COMMAND = """#!/bin/sh
if [ "$1" = __complete ] || [ "$1" = completion ]; then exec {python} -P -m tamed "$@"; fi
printf '<%s>' "$@"
echo
"""
FILES = {
    ".bashrc": f"PS1='{PROMPT}'\neval \"$(tamed completion bash)\"\n",
    ".zshrc": f"autoload -U compinit && compinit -u\nPS1='{PROMPT}'\neval \"$(tamed completion zsh)\"\n",
    ".config/fish/config.fish": f"function fish_prompt; echo -n '{PROMPT}'; end\nset fish_greeting\n",
    "my verse.toml": '[services.ecstasy]\nplugin = "fastpoetry"\n',
    "subject": "a file, not a folder",
}
SHELLS = {
    "bash": ["bash", "--noprofile", "--rcfile", ".bashrc", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "-i"],
}
TYPED = {
    "relo": "<reload>",
    "run fastpo": "<run><fastpoetry>",
    "run --log-format js": "<run><--log-format><json>",
    "run --log-format=js": "<run><--log-format=json>",
    "run fastpoetry --ifa": "<run><fastpoetry><--iface>",
    "run my": "<run><my verse.toml>",
    'run "my v': "<run><my verse.toml>",
    r"run my\ verse.toml --ecstasy.ifa": "<run><my verse.toml><--ecstasy.iface>",
    "run --plugin-dir sub": "<run><--plugin-dir><subfolder>",
    "run --plugin-dir=sub": "<run><--plugin-dir=subfolder>",
    "stop ver": "<stop><verse>",
    "status --json ver": "<status><--json><verse>",
    "restart verse pro": "<restart><verse><prose>",
}


# Of bash all is typed, and of the others what they quote and insert in ways of their own.
EVERYWHERE = (
    "run --log-format=js",
    'run "my v',
    r"run my\ verse.toml --ecstasy.ifa",
    "run --plugin-dir sub",
    "stop ver",
)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_what_is_typed(tamed: Tamed, shell: str) -> None:
    """Commands, options, values, plugins, files, folders, a deployment's options, and instances."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    home = tamed.folder / "home"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / "subfolder").mkdir()
    (home / ".local/fish/generated_completions").mkdir(parents=True)  # or fish makes them from all man pages
    completions = home / ".config/fish/completions/tamed.fish"
    completions.parent.mkdir()
    completions.write_text(tamed("completion", "fish").out)
    command = home / "bin" / "tamed"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=quote(sys.executable)))
    command.chmod(0o755)
    if shell == "bash":
        tamed.start("--name", "prose", "fastpoetry", "--port", "0")
        assert tamed("stop", "prose").status == 0
    daemon = tamed.start("--name", "verse", "fastpoetry", "--port", "0")
    env = {
        **tamed.environment(),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local"),
        "ZDOTDIR": str(home),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "TERM": "xterm",
        "INPUTRC": "/dev/null",
    }
    with _Terminal(SHELLS[shell], home, env) as terminal:
        for words in TYPED if shell == "bash" else EVERYWHERE:
            terminal.read_until(re.escape(PROMPT))
            terminal.type(f"tamed {words}\t\n")
            said = terminal.read_until(r"<[^\r]*>(?=\r)")
            assert said.replace("/>", ">") == TYPED[words]  # zsh takes back the slash that it has added
    daemon.stop()


class _Terminal:
    """A terminal with a shell in it."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.descriptor, its = os.openpty()
        in_front = ["setsid", "--ctty", *command]  # with it as its terminal, as a login has
        self.process = subprocess.Popen(in_front, stdin=its, stdout=its, stderr=its, cwd=folder, env=env)
        os.close(its)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.descriptor)

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self.descriptor, text.encode())

    def read_until(self, pattern: str) -> str:
        """Read until a text is on the screen, and return it; later output is read next."""
        while (found := re.search(pattern, self.text)) is None:
            self.text += os.read(self.descriptor, 4096).decode(errors="replace")
        self.text = self.text[found.end() :]
        return found[0]
