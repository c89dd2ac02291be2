"""The private names of Twisted that the bridge relies on: which they are, and whether they exist."""

import ast
import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("twisted")

import twisted
from twisted.internet import tcp, udp
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import globalLogBeginner
from twisted.scripts import twistd

import tamed.twisted

FOLDER = Path(tamed.twisted.__file__).parent
COMPAT = FOLDER / "_compat.py"

RELIED_ON = {
    "reactor._asyncioEventloop": "to move the reactor from one event loop to another",
    "reactor._eventTriggers": "to give up a shutdown that hangs",
    "tcp.Port._preexistingSocket": "to listen on a socket of the socket source",
    "tcp.Port._shouldShutdown": "to close a socket that other workers have too",
    "udp.Port._preexistingSocket": "to receive on a socket of the socket source",
    "globalLogBeginner._temporaryObserver": "to see whether a program has begun to log",
    "twistd.ServerOptions": "to parse twistd's command line",
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_what_is_relied_on_is_there(name: str) -> None:
    """Each private name exists in the installed Twisted."""
    with closing(asyncio.new_event_loop()) as loop:
        owners: dict[str, Any] = {
            "reactor": AsyncioSelectorReactor(loop),
            "tcp.Port": tcp.Port,
            "udp.Port": udp.Port,
            "globalLogBeginner": globalLogBeginner,
            "twistd": twistd,
        }
        owner, _, attribute = name.rpartition(".")
        assert hasattr(owners[owner], attribute), (
            f"Twisted {twisted.__version__} has no {name}, which {COMPAT.name} needs {RELIED_ON[name]}"
        )


def test_the_list_is_complete() -> None:
    """One file uses the private names of the list, and no other file of the bridge uses any."""
    listed = {name.rpartition(".")[2] for name in RELIED_ON} - {"ServerOptions"}
    files = {path: ast.parse(path.read_text("utf-8")) for path in FOLDER.glob("*.py")}
    own = {name for path, tree in files.items() if path != COMPAT for name in defined(tree)}
    used = {path.name: foreign for path, tree in files.items() if (foreign := set(private(tree)) - own)}
    assert used == {COMPAT.name: listed}
    assert own & listed == set()


def private(tree: ast.AST) -> Iterator[str]:
    """Yield the private attributes and modules that a file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("twisted"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("_") and not name.endswith("__"))


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file gives to attributes, methods, classes and variables of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id
