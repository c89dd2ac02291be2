"""What the layer loads: the supervisor has to stay small."""

import subprocess
import sys

import pytest

import tamed.daemon

HEAVY = [
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
]


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program loads in a fresh interpreter."""
    code = f"import sys; {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_one_part_does_not_load_the_others() -> None:
    """A part brings what it is built of, and no other part."""
    loaded = loaded_by("from tamed.daemon import Notifier")
    assert {name for name in loaded if name.startswith("tamed.daemon.")} == {"tamed.daemon._notify"}


def test_all_of_it_is_light() -> None:
    """All parts together load nothing heavy, and nothing that is not in the standard library."""
    loaded = loaded_by("import tamed.daemon as d; [getattr(d, name) for name in d.__all__]")
    assert loaded.intersection(HEAVY) == loaded_by("pass").intersection(HEAVY)
    tops = {name.partition(".")[0] for name in loaded - loaded_by("pass")}
    assert {name for name in tops if name not in sys.stdlib_module_names} == {"tamed"}


def test_every_name_can_be_had() -> None:
    """The face lists what it has, and says what it has not."""
    assert dir(tamed.daemon) == sorted(tamed.daemon.__all__)
    for name in tamed.daemon.__all__:
        assert getattr(tamed.daemon, name).__module__.startswith("tamed.daemon.") or name.isupper()
    with pytest.raises(AttributeError, match=r"module 'tamed\.daemon' has no attribute 'Nothing'"):
        getattr(tamed.daemon, "Nothing")  # noqa: B009
