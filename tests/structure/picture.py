"""The picture of the layers in ARCHITECTURE.md; ``python -m tests.structure.picture`` draws it anew."""

import graphlib
import sys

from tests.structure.source import ROOT, imports, layer_of, modules

_WIDTH = 78


def draw() -> str:
    """Draw the layers as rows: all that a layer imports is in rows below it, and no layer could be lower."""
    below: dict[str, set[str]] = {layer_of(module): set() for module in modules()}
    for found in imports():
        importer, imported = layer_of(found.importer), layer_of(found.imported)
        if importer != imported:
            below[importer].add(imported)
    rows: dict[int, list[str]] = {}
    heights: dict[str, int] = {}
    for layer in graphlib.TopologicalSorter(below).static_order():
        height = heights[layer] = 1 + max((heights[each] for each in below[layer]), default=-1)
        rows.setdefault(height, []).append(f"[ {layer}{_kind(layer)} ]")
    return "\n".join(
        "     ".join(sorted(rows[height])).center(_WIDTH).rstrip() for height in sorted(rows, reverse=True)
    )


def _kind(layer: str) -> str:
    return "/" if (ROOT / "src" / "tamed" / layer).is_dir() else ".py"


if __name__ == "__main__":
    sys.stdout.write(f"{draw()}\n")
