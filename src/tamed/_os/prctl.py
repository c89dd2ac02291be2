"""``prctl(2)``, which the standard library does not have; ``ctypes`` is loaded by the first call."""

import os

__all__ = ["prctl"]


def prctl(option: int, *arguments: int) -> int:
    """Make the call, with up to four arguments and return what it returns.

    Raises ``OSError`` with what the kernel said.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    filled = (*arguments, 0, 0, 0, 0)[:4]  # the kernel demands that unused ones are 0
    result: int = libc.prctl(option, *map(ctypes.c_ulong, filled))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
