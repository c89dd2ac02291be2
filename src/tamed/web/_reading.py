"""Whether what a client sends is read."""

import asyncio

__all__ = ["set_reading"]


def set_reading(transport: asyncio.Transport, *, paused: bool) -> None:
    """Pause or resume reading if that is a change: otherwise, and after a close, uvloop would raise."""
    if transport.is_closing() or transport.is_reading() != paused:
        return
    if paused:
        transport.pause_reading()
    else:
        transport.resume_reading()
