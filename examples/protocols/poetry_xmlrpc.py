"""XML-RPC, which is XML in the body of an HTTP request and of its response."""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from xmlrpc.client import Fault, dumps, loads

log = logging.getLogger("protocols")


def answer_call(body: bytes, methods: Mapping[str, Callable[..., Any]]) -> bytes:
    """Call the method that a request names, and return the response: its result, or a fault."""
    try:
        arguments, name = loads(body)
    except Exception as error:  # whatever the parser makes of it
        log.info("a call that cannot be read: %s", error)
        return dumps(Fault(1, "this is no call of XML-RPC")).encode()
    if name is None or name not in methods:
        return dumps(Fault(2, f"there is no method {name!r}")).encode()
    if arguments:
        return dumps(Fault(3, f"{name} takes no arguments")).encode()
    return dumps((methods[name](),), methodresponse=True).encode()
