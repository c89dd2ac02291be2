"""What the tests that ask live processes share: real daemons, and a folder of a user's."""

import os
from pathlib import Path

import pytest

from tests.supervised.conftest import public_tamed, tamed
from tests.supervised.daemon import NOBODY, Tamed

__all__ = ["home", "public_tamed", "tamed"]

# It waits while it is loaded, so that there is time to look at all processes.
WAITING = """
import os, time
from tamed import Application

with open("uids", "a") as file:
    print(os.getuid(), os.geteuid(), os.environ["HOME"], os.environ["SHELL"], file=file)
while not os.path.exists("go"):
    time.sleep(0.01)
application = Application("app")
"""


@pytest.fixture
def home(public_tamed: Tamed) -> Path:
    """Make a folder of a user's, with a program in it that waits for the file ``go``."""
    folder = public_tamed.folder / "home"
    folder.mkdir()
    (folder / "app.py").write_text(WAITING)
    for path in (folder, folder / "app.py"):
        os.chown(path, NOBODY, -1)
    return folder
