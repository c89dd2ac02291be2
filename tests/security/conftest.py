"""What the tests that ask live processes share: real daemons, as in ``tests/supervised``."""

from tests.supervised.conftest import public_tamed, tamed

__all__ = ["public_tamed", "tamed"]
