"""The command, run in this process, as the tests of the command run it."""

from tests.cli.conftest import tamed

__all__ = ["tamed"]
