"""The source of the package, read and not run: its modules, and what each of them imports."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = "tamed"


@dataclass(frozen=True)
class Import:
    """One import of one of our own modules."""

    importer: str
    imported: str  # a module, or the package that a name was taken from
    line: int
    at_load: bool  # it runs when the importer is loaded: not in a function, not for type checkers only

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.imported}"


def modules() -> dict[str, Path]:
    """Return the file of every module of the package by its dotted name."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer_of(module: str) -> str:
    """Return the layer a module is in, as the table in ARCHITECTURE.md names it: ``net``, ``errors``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, which several tests look at."""
    return ast.parse(path.read_text("utf-8"), str(path))


@functools.cache
def imports() -> list[Import]:
    """Return every import of one of our modules by another, wherever in a file it stands."""
    files = modules()
    return [found for module, path in files.items() for found in imports_of(module, path, files)]


def imports_of(module: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """Yield the imports of our own modules in one file."""
    for node, at_load in _walk(parsed(path), at_load=True):
        for imported in _targets(node, module, path, known):
            if imported.partition(".")[0] == PACKAGE:
                yield Import(module, imported, getattr(node, "lineno", 0), at_load)


def _walk(node: ast.AST, *, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every statement with whether it runs when the module is loaded."""
    yield node, at_load
    if isinstance(node, ast.If) and _asks_for_type_checking(node.test):
        for statement in node.body:
            yield from _walk(statement, at_load=False)
        for statement in node.orelse:
            yield from _walk(statement, at_load=at_load)
        return
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):  # which has no statement in it
            yield from _walk(child, at_load=at_load and not later)


def _asks_for_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in {getattr(test, "id", None), getattr(test, "attr", None)}


def _targets(node: ast.AST, module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that an import statement names; for ``from package import name`` the deepest."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = _origin(node, module, path)
        for alias in node.names:
            submodule = f"{origin}.{alias.name}"
            yield submodule if submodule in known else origin


def _origin(node: ast.ImportFrom, module: str, path: Path) -> str:
    """Return what stands between ``from`` and ``import``, made absolute."""
    if node.level == 0:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)
