"""What the tests of the bridge to Twisted share: real daemons."""

from tests.supervised.conftest import public_tamed, tamed

__all__ = ["public_tamed", "tamed"]
