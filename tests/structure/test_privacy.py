"""Attributes that begin with an underscore belong to the module whose classes have them."""

import ast
from collections.abc import Iterable, Iterator

from tests.structure.source import modules, parsed

# Named tuples have public methods with an underscore, and so have two modules of the standard library.
PUBLIC = {"_asdict", "_current_frames", "_exit", "_fields", "_make", "_replace", "_xoptions"}


def test_no_module_touches_a_private_attribute_of_anothers_objects() -> None:
    """But for those of libraries, each of which has one file for what it keeps to itself."""
    touched = [
        f"{module} (line {node.lineno}): {ast.unparse(node)}"
        for module, path in modules().items()
        if path.name != "_compat.py"
        for node in foreign(parsed(path))
    ]
    assert touched == []


def foreign(tree: ast.Module) -> Iterator[ast.Attribute]:
    """Yield the uses of private attributes that nothing in a module defines."""
    nodes = [*ast.walk(tree)]
    own = PUBLIC | set(defined(nodes))
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node


def defined(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names of functions, of variables, and of what objects have of themselves."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and of_self(node):
            yield node.attr
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def is_private(name: str) -> bool:
    """Tell whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def of_self(node: ast.Attribute) -> bool:
    """Tell whether an attribute is one of the object itself, or of its class."""
    of = node.value
    is_super = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "super"
    return is_super or (isinstance(of, ast.Name) and of.id in ("self", "cls"))
