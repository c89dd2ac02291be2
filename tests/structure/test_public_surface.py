"""What is public of the layers: it is listed, sorted and described."""

import ast
import enum
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.structure.source import PACKAGE, layer_of, modules


def faces() -> list[str]:
    """Return what is public: the top package, and of each layer its face, or else its public modules."""
    found = modules()
    packages = {module for module, path in found.items() if path.name == "__init__.py"}
    faceless = {module for module in packages if "__all__" not in found[module].read_text("utf-8")}
    return [
        module
        for module in found
        if layer_of(module) != "__main__"
        and module not in faceless
        and (module.count(".") <= 1 or module.rpartition(".")[0] in faceless)
        and not (module.count(".") > 1 and module.rpartition(".")[2].startswith("_"))
    ]


FACES = pytest.mark.parametrize("face", faces())


def sort_key(name: str) -> tuple[int, str]:
    """Order CONSTANTS before Classes before functions, as ruff does (RUF022)."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def bound_names(path: Path) -> Iterator[str]:
    """Yield the names that a face binds by importing them from within its package, to hand them on."""
    for node in handed_on(path):
        yield from (alias.asname or alias.name for alias in node.names)


def handed_on(path: Path) -> Iterator[ast.ImportFrom]:
    """Yield the imports of a face, but for its own means."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.startswith(PACKAGE):
            yield node


@FACES
def test_all_is_sorted(face: str) -> None:
    """``__all__`` names each thing once, in order."""
    listed = list(importlib.import_module(face).__all__)
    assert listed == sorted(set(listed), key=sort_key)


@FACES
def test_all_is_true(face: str) -> None:
    """Everything in ``__all__`` can be had."""
    module = importlib.import_module(face)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@FACES
def test_all_is_complete(face: str) -> None:
    """What a face takes from behind it, and what a module on its own defines, is in ``__all__``."""
    module = importlib.import_module(face)
    path = modules()[face]
    if path.name == "__init__.py":
        names = set(bound_names(path))
    else:
        names = {name for name, value in vars(module).items() if is_defined_in(value, face)}
    public = {name for name in names if not name.startswith("_")}
    assert public - set(module.__all__) == set()


@FACES
def test_a_face_gives_what_type_checkers_are_shown(face: str) -> None:
    """A name that is loaded late is the one that the face imports for type checkers."""
    module = importlib.import_module(face)
    for node in handed_on(modules()[face]) if modules()[face].name == "__init__.py" else ():
        home = importlib.import_module(node.module or "")
        for alias in node.names:
            assert getattr(module, alias.asname or alias.name) is getattr(home, alias.name)


def is_defined_in(value: object, module: str) -> bool:
    """Tell whether a value is a class or function of that module's own."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module


@FACES
def test_everything_public_is_described(face: str) -> None:
    """Every public name has a docstring of its own, and so has every public method and property."""
    module = importlib.import_module(face)
    silent = [name for name in module.__all__ for name in undescribed(name, getattr(module, name))]
    assert silent == []


def undescribed(name: str, value: object) -> Iterator[str]:
    """Yield the names without a docstring: this one's, and those of its public members."""
    if inspect.isclass(value):
        if not own_docstring(value):
            yield name
        for member, attribute in vars(value).items():
            if is_public_code(member, attribute) and not inspect.getdoc(getattr(value, member)):
                yield f"{name}.{member}"
    elif (isinstance(value, ModuleType) or inspect.isroutine(value)) and not inspect.getdoc(value):
        yield name


def own_docstring(cls: type) -> bool:
    """Tell whether somebody wrote a docstring for the class; a dataclass makes one of its signature."""
    text = vars(cls).get("__doc__") or ""
    return bool(text) and not text.startswith(f"{cls.__name__}(")


def is_public_code(name: str, attribute: object) -> bool:
    """Tell whether a member of a class is code that users may call or override."""
    kinds = (property, classmethod, staticmethod)
    return not name.startswith("_") and (inspect.isfunction(attribute) or isinstance(attribute, kinds))


def test_undescribed_finds_what_has_no_docstring() -> None:
    """The walk sees classes, dataclasses' made-up docstrings, methods, properties and functions."""

    class Silent:
        def method(self) -> None: ...

        @property
        def value(self) -> int:
            return 1

        def _hidden(self) -> None: ...

    class Kind(enum.Enum):
        ONE = 1

    def function() -> None: ...

    assert list(undescribed("Silent", Silent)) == ["Silent", "Silent.method", "Silent.value"]
    assert list(undescribed("Kind", Kind)) == ["Kind"]
    assert list(undescribed("function", function)) == ["function"]
