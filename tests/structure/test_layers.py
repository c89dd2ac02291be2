"""Which module may import which: the table in ARCHITECTURE.md, held against the source."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

from tests.structure.picture import draw
from tests.structure.source import (
    PACKAGE,
    ROOT,
    SOURCE,
    Import,
    imports,
    imports_of,
    layer_of,
    modules,
    parsed,
)

ROW = re.compile(r"^\| `(?P<layer>\w+)(?:\.py|/)` \|.*\| (?P<allowed>[^|]+) \|$", re.MULTILINE)
NOTHING = "nothing of ours"


def table() -> dict[str, set[str]]:
    """Return the layers and what each may import, as ARCHITECTURE.md has them."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    text = text.partition("\n## The layers\n")[2].partition("\n## ")[0]
    return {
        row["layer"]: set() if row["allowed"] == NOTHING else set(row["allowed"].split(", "))
        for row in ROW.finditer(text)
    }


def test_table_names_the_layers_that_exist() -> None:
    """ARCHITECTURE.md has a row for every layer in the source, and for no other."""
    assert sorted(table()) == sorted({layer_of(module) for module in modules()})


def test_the_picture_shows_the_layers_as_they_are() -> None:
    """What ``python -m tests.structure.picture`` draws now stands in ARCHITECTURE.md."""
    assert f"```text\n{draw()}\n```" in (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def test_table_names_only_its_own_rows() -> None:
    """What a layer may import is itself a layer of the table."""
    rows = table()
    unknown = {layer: allowed - rows.keys() for layer, allowed in rows.items() if allowed - rows.keys()}
    assert unknown == {}


def test_table_has_no_cycle() -> None:
    """No layer may import, through others, a layer that may import it."""
    assert list(graphlib.TopologicalSorter(table()).static_order())


def test_every_import_is_allowed() -> None:
    """Every import of another layer, in functions and for type checkers too, is in the table."""
    rows = table()
    forbidden = [
        str(found)
        for found in imports()
        if (importer := layer_of(found.importer)) != (imported := layer_of(found.imported))
        and imported not in rows.get(importer, set())
    ]
    assert forbidden == []


def test_nothing_inside_imports_the_top_package() -> None:
    """The top package is for users: a module that imported it would depend on all of them."""
    assert [str(found) for found in imports() if found.imported == PACKAGE] == []


def test_no_module_is_part_of_an_import_cycle() -> None:
    """No module needs one that needs it: to be loaded, later, or for a type checker to understand it."""
    for graph in (importing(imports_at_load=True), importing(imports_at_load=False)):
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            pytest.fail(" -> ".join(error.args[1]))


def importing(*, imports_at_load: bool) -> dict[str, set[str]]:
    """Return which modules each module loads when it is loaded; or which it imports anywhere at all."""
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in imports():
        if not imports_at_load:
            graph[found.importer].add(found.imported)
        elif found.at_load:
            graph[found.importer] |= loaded_by(found)
    return graph


def loaded_by(found: Import) -> set[str]:
    """Return the modules that an import loads: the one it names and the packages on the way there.

    Packages that the importer is itself in are being loaded already.
    """
    parts = found.imported.split(".")
    packages = {".".join(parts[:length]) for length in range(1, len(parts))}
    own = {package for package in packages if f"{found.importer}.".startswith(f"{package}.")}
    return {found.imported} | (packages - own)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import tamed", [("tamed", True)]),
        ("import tamed.net._listener as x, os", [("tamed.net._listener", True)]),
        ("from tamed.net import Endpoint", [("tamed.net", True)]),
        ("from tamed.net import _listener", [("tamed.net._listener", True)]),
        ("from . import _listener", [("tamed.net._listener", True)]),
        ("from .. import errors", [("tamed.errors", True)]),
        ("def f():\n    from tamed.net import Server", [("tamed.net", False)]),
        ("if TYPE_CHECKING:\n    import tamed.cli", [("tamed.cli", False)]),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    import tamed.cli", [("tamed.cli", True)]),
        ("class C:\n    import tamed.cli", [("tamed.cli", True)]),
        ("import tamedx", []),
    ],
)
def test_imports_are_found_wherever_they_stand(
    tmp_path: Path, code: str, expected: list[tuple[str, bool]]
) -> None:
    """Each form of import is read as the module that it loads, and as loaded now or later."""
    known = dict.fromkeys(["tamed", "tamed.errors", "tamed.net", "tamed.net._listener"], tmp_path)
    path = tmp_path / "_server.py"
    path.write_text(code)
    found = imports_of("tamed.net._server", path, known)
    assert [(one.imported, one.at_load) for one in found] == expected


def test_private_modules_are_imported_within_their_layer_only() -> None:
    """A layer is used through its face; no one reaches behind it for a module with an underscore."""
    behind = [
        str(found)
        for found in imports()
        if layer_of(found.importer) != layer_of(found.imported)
        and any(part.startswith("_") for part in found.imported.split(".")[2:])
    ]
    assert behind == []


def test_every_module_says_what_it_is_for() -> None:
    """Every module opens with a docstring."""
    silent = [
        str(path.relative_to(SOURCE)) for path in modules().values() if not ast.get_docstring(parsed(path))
    ]
    assert silent == []
