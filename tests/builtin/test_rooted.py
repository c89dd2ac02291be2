"""What can be reached below a directory, and what not."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._rooted import RootedDirectory
from tests.builtin.attempts import ALLOWED, SECRET, every_attempt, make_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a directory with secrets beside it."""
    return make_tree(tmp_path)


def read(rooted: RootedDirectory, path: str) -> str:
    """Open a file and read it."""
    with os.fdopen(rooted.open(path)) as file:
        return file.read()


@pytest.mark.parametrize(("path", "content"), ALLOWED.items())
def test_what_is_there_can_be_read(root: Path, path: str, content: str) -> None:
    """Also through links, if they stay in the directory."""
    assert read(RootedDirectory(root), path) == content


@every_attempt
def test_nothing_else_can_be_read(root: Path, attempt: str) -> None:
    """Every attempt is an OSError, whatever is wrong with it."""
    with pytest.raises(OSError, match=r"No such|Not a directory|Too many|too long|not a regular"):
        RootedDirectory(root).open(attempt)


@every_attempt
def test_nothing_can_be_made_elsewhere(root: Path, attempt: str, tmp_path: Path) -> None:
    """An attempt to write changes no secret, and makes no file outside."""
    before = sorted(tmp_path.iterdir())
    with suppress(OSError):
        os.close(RootedDirectory(root).open(attempt, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    assert sorted(tmp_path.iterdir()) == before
    assert [path.read_text() for path in tmp_path.glob("*/secret.txt")] == [SECRET, SECRET]
    assert (root / ".hidden").read_text() == SECRET


def test_a_listing_has_only_what_can_be_reached(root: Path) -> None:
    """Links that lead out, hidden files and names that cannot be said are not in it."""
    (root / "two\nlines").touch()
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff"))).touch()
    found = dict(RootedDirectory(root).entries("/"))
    assert sorted(found) == ["inside", "inside-dir", "open.txt", "sub"]
    assert found["inside"].st_size == len("deep\n")


def test_dot_files_can_be_served_too(root: Path) -> None:
    """They can, but not what is outside."""
    rooted = RootedDirectory(root, dot_files=True)
    assert read(rooted, ".dir/hidden.txt") == SECRET
    assert ".hidden" in dict(rooted.entries(""))
    with pytest.raises(FileNotFoundError):
        rooted.open("..")


def test_a_directory_is_no_file(root: Path) -> None:
    """Nor is the root itself."""
    for path in ("sub", "", "/"):
        with pytest.raises(IsADirectoryError):
            RootedDirectory(root).open(path)


def test_the_directory_itself_may_be_behind_a_link(root: Path, tmp_path: Path) -> None:
    """It is the operator who names it, and who may exchange it."""
    (tmp_path / "current").symlink_to("root")
    assert read(RootedDirectory(tmp_path / "current"), "open.txt") == "open\n"


@given(
    st.lists(st.sampled_from(["..", ".", "", "sub", "out-dir", "inside-dir", "up", "secret.txt", "outside"]))
)
def test_no_path_of_any_components_leads_out(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    """Whatever is put together, a secret is not what comes of it."""
    root = tmp_path_factory.getbasetemp() / "tree"
    if not root.exists():
        make_tree(root)
    with suppress(OSError):
        assert read(RootedDirectory(root / "root"), "/".join(parts)) != SECRET


def test_exchanging_a_directory_for_a_link_meanwhile_leads_nowhere(root: Path) -> None:
    """However often a directory becomes a link to the outside and back, it is never followed there."""
    (root / "door").mkdir()
    (root / "door" / "secret.txt").write_text("harmless\n")
    (root / "link").symlink_to("../outside")
    rooted, seen = RootedDirectory(root), set()
    with exchanging(root):
        for _ in range(3000):
            with suppress(OSError):
                seen.add(read(rooted, "door/secret.txt"))
    assert SECRET not in seen


@contextmanager
def exchanging(root: Path) -> Iterator[None]:
    """Exchange ``door`` for ``link`` and back, all the time."""
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            (root / "door").rename(root / "aside")
            (root / "link").rename(root / "door")
            (root / "door").rename(root / "link")
            (root / "aside").rename(root / "door")

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
