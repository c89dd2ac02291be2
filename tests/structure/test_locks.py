"""The locks in requirements/: complete, in step with pyproject.toml, and bound to no place on the network."""

import re
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement

from tests.structure.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
OPTIONAL = PROJECT["project"]["optional-dependencies"]
EXTRAS = sorted(OPTIONAL)
LOCKS = pytest.mark.parametrize("lock", ["run", "dev", *EXTRAS])


def text_of(lock: str) -> str:
    """Return the text of a lock."""
    return (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")


def pinned(lock: str) -> dict[str, str]:
    """Return the version of every package in a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text_of(lock), re.MULTILINE))


@LOCKS
def test_locks_name_no_place(lock: str) -> None:
    """A lock names packages and hashes only: where they come from is for the machine that installs to say."""
    assert not re.search(r"://|@|--(?!hash=)|^/", text_of(lock), re.MULTILINE)


@LOCKS
def test_every_pin_has_a_hash(lock: str) -> None:
    """No package is installed unchecked."""
    assert re.findall(r"^(\S+)==[^\\]*$", text_of(lock), re.MULTILINE) == []


@LOCKS
def test_locks_are_in_step_with_the_project(lock: str) -> None:
    """Each dependency of the project, and of its tools, is pinned to a version that it allows."""
    groups = PROJECT["dependency-groups"]
    wanted = [*PROJECT["project"]["dependencies"]]
    if lock in EXTRAS:
        wanted += OPTIONAL[lock] if lock != "all" else chain(*(OPTIONAL[extra] for extra in EXTRAS))
    else:
        wanted += groups["build"]
    if lock == "dev":
        wanted += [one for one in chain(*groups.values()) if isinstance(one, str)]
    versions = pinned(lock)
    for requirement in map(Requirement, filter(lambda one: not one.startswith("tamed["), wanted)):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_all_extras_are_one() -> None:
    """``tamed[all]`` has each of the others."""
    (everything,) = map(Requirement, OPTIONAL["all"])
    assert sorted(everything.extras) == [extra for extra in EXTRAS if extra != "all"]


@LOCKS
def test_all_locks_agree(lock: str) -> None:
    """What runs is what was tested: a package has the same version in every lock."""
    assert pinned(lock).items() <= pinned("dev").items()
