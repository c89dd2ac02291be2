"""What the folder loads: the supervisor has to stay small."""

import sys
from pathlib import Path

import tamed.unix
from tests.fresh import loaded_by

HEAVY = {
    "asyncio",
    "logging",
    "dataclasses",
    "inspect",
    "threading",
    "subprocess",
    "ctypes",
    "difflib",
    "zlib",
    "tempfile",
}


def test_one_part_does_not_load_the_others() -> None:
    """A part brings what it is built of, and no other part."""
    loaded = loaded_by("import tamed.unix.notify")
    assert {name for name in loaded if name.startswith("tamed.unix.")} == {"tamed.unix.notify"}


def test_all_of_it_is_light() -> None:
    """All parts together load nothing heavy, and nothing that is not in the standard library."""
    parts = [path.stem for path in Path(tamed.unix.__path__[0]).glob("[a-z]*.py")]
    loaded = loaded_by("; ".join(f"import tamed.unix.{part}" for part in parts))
    assert loaded & HEAVY == set()
    tops = {name.partition(".")[0] for name in loaded}
    assert {name for name in tops if name not in sys.stdlib_module_names} == {"tamed"}
