"""What is public of the layers: it is listed, sorted and described."""

import ast
import enum
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tests.structure.source import PACKAGE, layer_of, modules, parsed


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


@functools.cache
def loaded() -> dict[str, ModuleType]:
    """Load what is public."""
    return {name: importlib.import_module(name) for name in faces()}


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
    for node in ast.walk(parsed(path)):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.startswith(PACKAGE):
            yield node


def test_all_is_sorted() -> None:
    """``__all__`` names each thing once, in order."""
    listed = {face: list(module.__all__) for face, module in loaded().items()}
    assert listed == {face: sorted(set(names), key=sort_key) for face, names in listed.items()}


def test_all_is_true() -> None:
    """Everything in ``__all__`` can be had."""
    listed = [(module, name) for module in loaded().values() for name in module.__all__]
    assert [f"{module.__name__}.{name}" for module, name in listed if not hasattr(module, name)] == []


def test_all_is_complete() -> None:
    """What a face takes from behind it, and what a module on its own defines, is in ``__all__``."""
    paths = modules()
    missing = [
        f"{face}.{name}"
        for face, module in loaded().items()
        for name in names_of(module, paths[face])
        if not name.startswith("_") and name not in module.__all__
    ]
    assert missing == []


def names_of(module: ModuleType, path: Path) -> set[str]:
    """Return the names that a face hands on, or that a module on its own defines."""
    if path.name == "__init__.py":
        return set(bound_names(path))
    return {name for name, value in vars(module).items() if is_defined_in(value, module.__name__)}


def test_a_face_gives_what_type_checkers_are_shown() -> None:
    """A name that is loaded late is the one that the face imports for type checkers."""
    paths = modules()
    given = [
        (module, alias.asname or alias.name, importlib.import_module(node.module or ""), alias.name)
        for face, module in loaded().items()
        if paths[face].name == "__init__.py"
        for node in handed_on(paths[face])
        for alias in node.names
    ]
    assert len(given) > 10
    others = [name for face, name, home, own in given if getattr(face, name) is not getattr(home, own)]
    assert others == []


def is_defined_in(value: object, module: str) -> bool:
    """Tell whether a value is a class or function of that module's own."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module


def test_everything_public_is_described() -> None:
    """Every public name has a docstring of its own, and so has every public method and property."""
    silent = [
        f"{face}.{member}"
        for face, module in loaded().items()
        for name in module.__all__
        for member in undescribed(name, getattr(module, name))
    ]
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
