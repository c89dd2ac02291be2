"""Waiting in asyncio for what Twisted's programs return: a Deferred, a coroutine, or nothing to wait for."""

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

__all__ = ["begun", "outcome"]


def begun(method: Callable[[], Any]) -> "Deferred[Any]":
    """Call a method, and return a Deferred for what comes of it; a coroutine is begun."""

    def begin() -> Any:
        result = method()
        if inspect.iscoroutine(result):
            return Deferred.fromFuture(asyncio.ensure_future(outcome(result)))
        return result

    return maybeDeferred(begin)


async def outcome(result: Any) -> Any:
    """Wait for what a method has returned, and return or raise what comes of it.

    A coroutine may await Deferreds and asyncio's futures alike. Whoever is cancelled while waiting cancels
    what is waited for.
    """
    if isinstance(result, Deferred):
        return await result.asFuture(asyncio.get_running_loop())
    if inspect.iscoroutine(result):
        return await _both_worlds(result)
    if inspect.isawaitable(result):
        return await result
    return result


@types.coroutine
def _both_worlds(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and give the event loop only what it understands to wait for."""
    error: BaseException | None = None
    value: Any = None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        value = error = None
        try:
            if isinstance(awaited, Deferred):
                yield from _fired(awaited)
            else:
                value = yield awaited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as raised:  # thrown into the coroutine, above
            error = raised


def _fired(deferred: "Deferred[Any]") -> Generator[Any, Any, None]:
    """Wait until a Deferred has its result, which is left in it: the coroutine takes it from there."""
    fired = asyncio.get_running_loop().create_future()

    def note(result: Any) -> Any:
        if not fired.done():
            fired.set_result(None)
        return result

    deferred.addBoth(note)
    try:
        yield from fired
    except asyncio.CancelledError:
        deferred.addErrback(_ignore)
        deferred.cancel()
        raise


def _ignore(_: Failure) -> None:
    """Take the failure of what was cancelled."""
