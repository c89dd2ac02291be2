"""A Python application for the web: how it is imported, which interface it has, and what stands around it.

`Lifespan` starts and stops it with the service, and `Forwarded` believes the proxies in front of it.
"""

import asyncio
import importlib
import inspect
import ipaddress
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from tamed._os.variables import VariableName, missing_module
from tamed.builtin._web.wsgi import WsgiApplication
from tamed.errors import ApplicationFailed, ConfigurationError, MissingInput, reason
from tamed.log.logger import own_logger
from tamed.service.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Forwarded", "Interface", "Lifespan", "as_asgi", "interface_of", "load"]

log = own_logger("web")

Interface = Literal["asgi", "wsgi"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEMES: Final = {"http", "https"}
_MOST: Final = 100
"""How many elements of X-Forwarded-For are read, from the nearest proxy on."""


def load(name: str, folder: Path | None = None) -> Any:
    """Import ``package.module:variable`` and return its value.

    ``folder`` is searched last, so that nothing in it hides an installed package. Raises
    ConfigurationError for a name that is not of this form, MissingInput if there is no such module, and
    ApplicationFailed, with what was raised as its cause, if it cannot be imported or has no such variable.
    """
    what = f"web application {name!r}"
    try:
        wanted = VariableName.parse(name)
    except ValueError as error:
        raise ConfigurationError(what, str(error)) from None
    if folder is not None and str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    try:
        module = importlib.import_module(wanted.module)
    except Exception as error:
        if missing := missing_module(error, wanted.module):
            remedy = "install it, or name the folder it is in with --app-dir"
            raise MissingInput(what, f"there is no module {missing!r}", remedy) from None
        raise ApplicationFailed(f"{wanted.module} raised while it was imported", reason(error)) from error
    try:
        found = wanted.value_in(module)
    except AttributeError:
        raise ApplicationFailed(what, f"{wanted.module} has no variable {wanted.variable!r}") from None
    if not callable(found):
        raise ApplicationFailed(what, f"it is {type(found).__name__}, and cannot be called")
    return found


def as_asgi(application: Any, interface: Interface | None, threads: int) -> "ASGIApp":
    """Return an application as one that speaks ASGI 3; one that speaks WSGI runs in that many threads.

    Without an ``interface``, that is detected: see `interface_of`, also for what is raised.
    """
    if (interface or interface_of(application)) == "wsgi":
        return cast("ASGIApp", WsgiApplication(application, threads))
    return cast("ASGIApp", application)


def interface_of(application: Any) -> Interface:
    """Detect an application's interface: ASGI if it is a coroutine function, or takes three arguments.

    With two arguments it is WSGI. Raises ApplicationFailed for all others.
    """
    call = application if inspect.isroutine(application) else getattr(application, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(call):
        return "asgi"
    if _takes(application, 3):
        return "asgi"
    if _takes(application, 2):
        return "wsgi"
    raise ApplicationFailed(
        f"web application {application!r}", "it takes neither the arguments of ASGI nor of WSGI", "say --wsgi"
    )


def _takes(application: Any, arguments: int) -> bool:
    try:
        inspect.signature(application).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


class Lifespan(Service):
    """Speaks the lifespan protocol of ASGI with an application.

    ``start`` returns when the application is ready, and raises ApplicationFailed if that reports a failure,
    or raises once it has received the event. An application that raises before does not know the protocol,
    and is served without it. ``stop`` waits until the application has stopped, and raises in the same way.
    ``app_state`` is the state that the application wants in each request.
    """

    def __init__(self, application: "ASGIApp") -> None:
        super().__init__("lifespan")
        self.app_state: dict[str, Any] = {}
        self._application = application
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._answer: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_received = False
        self._failure: Exception | None = None  # that is not reported yet

    async def start(self) -> None:
        """Start the application."""
        self._events = asyncio.Queue()
        self._has_received = False
        self.app_state.clear()
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            answer = await self._send("startup")
        except BaseException:
            await self._end()
            raise
        await self._require(answer, "start")

    async def stop(self) -> None:
        """Stop the application."""
        answer = await self._send("shutdown")
        await self._require(answer, "stop")
        await self._end()

    async def _require(self, answer: Any, what: str) -> None:
        """Raise if the application reported a failure, or raised instead of an answer."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise ApplicationFailed(f"the web application failed to {what}", reason(failure)) from failure
        if answer is not None and answer["type"].endswith(".failed"):
            await self._end()
            raise ApplicationFailed(f"the web application failed to {what}", answer.get("message", ""))

    async def _send(self, event: str) -> Any:
        """Send an event, and return the answer; None from an application without a lifespan."""
        assert self._task is not None
        if self._task.done():
            return None
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": f"lifespan.{event}"})
        await asyncio.wait([self._task, self._answer], return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    async def _run(self) -> None:
        versions = {"version": "3.0", "spec_version": "2.0"}
        scope: Any = {"type": "lifespan", "asgi": versions, "state": self.app_state}
        try:
            await self._application(scope, self._receive, self._on_answer)
        except Exception as error:
            if not self._has_received:
                log.info("the web application has no lifespan: %s", reason(error))
            elif self._answer is not None and self._answer.done():
                log.exception("the web application's lifespan has failed")
            else:
                self._failure = error

    async def _receive(self) -> Any:
        event = await self._events.get()
        self._has_received = True
        return event

    async def _on_answer(self, message: "Message") -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    async def _end(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class _Client(NamedTuple):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int


class Forwarded:
    """Believes the headers ``X-Forwarded-For`` and ``X-Forwarded-Proto`` of trusted proxies, as ASGI.

    Each proxy appends its client, so the client is the last one that is no trusted proxy. If an element
    behind it is no address, none is believed, and the client is the proxy.
    """

    def __init__(self, application: "ASGIApp", trusted: Sequence[str]) -> None:
        self._application = application
        self._networks: list[_Network] = [ipaddress.ip_network(each) for each in trusted]

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request (ASGI)."""
        peer = _parsed(scope["client"][0]) if self._networks and scope.get("client") else None
        if peer is not None and self._trusts(peer):
            self._believe(scope)
        await self._application(scope, receive, send)

    def _believe(self, scope: "Scope") -> None:
        schemes = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if schemes and (scheme := schemes[-1].decode("latin-1").strip().lower()) in _SCHEMES:
            scope["scheme"] = scheme
        clients = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        client = self._client(clients.decode("latin-1").split(",")[-_MOST:])
        if client is not None:
            scope["client"] = (str(client.address), client.port)

    def _client(self, elements: list[str]) -> _Client | None:
        client = None
        for element in reversed(elements):
            client = _parsed(element.strip())
            if client is None or not self._trusts(client):
                break
        return client

    def _trusts(self, client: _Client) -> bool:
        return any(client.address in network for network in self._networks)


def _parsed(text: str) -> _Client | None:
    """Read ``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``; a mapped IPv4 address is unmapped."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and int(port[:6]) < 1 << 16):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return _Client(mapped or address, int(port or 0))
