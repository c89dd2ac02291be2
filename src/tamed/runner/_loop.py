"""Which event loop runs an application."""

import asyncio
from collections.abc import Callable

from tamed.errors import ConfigurationError, reason

__all__ = ["loop_factory"]


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes an event loop: ``asyncio``'s, ``uvloop``'s, or with ``auto`` uvloop's where it is.

    Raises ConfigurationError if ``uvloop`` is asked for and cannot be imported.
    """
    if name != "asyncio":
        try:
            import uvloop

            return uvloop.new_event_loop
        except ImportError as error:
            if name == "uvloop":
                remedy = "pip install uvloop, or choose another loop"
                raise ConfigurationError("event loop uvloop", reason(error), remedy) from error
    return asyncio.new_event_loop
