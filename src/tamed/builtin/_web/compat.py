"""What is used of uvicorn beyond its documentation: the classes that serve a connection with HTTP/1.1.

uvicorn documents how an application is run, and not these classes. Only this module imports them, the extra
``web`` has an upper bound for uvicorn, and tests/builtin/test_web_compat.py names each of their attributes
that is used.
"""

import asyncio
import time
from collections import deque
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tamed.errors import reason
from tamed.log.logger import own_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Exchange", "ServerState", "UvicornProtocol", "server_config"]

log = own_logger("web")
access_log = own_logger("web.access")


def server_config(application: "ASGIApp", *, access_log: bool = True, keep_alive: float = 5.0) -> Config:
    """Return uvicorn's configuration of a server for an application that speaks ASGI 3.

    The application must have required arguments: uvicorn calls one that has none, as a factory.
    """
    config = Config(
        application,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=access_log,
        proxy_headers=False,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # any number is as good
    )
    config.load()
    return config


class Exchange:
    """A request and its answer, as the application has them.

    An application that was notified that its client has left may end in any way: an error of it is none then.
    Halfway through a drain it is notified too, once, though the client is there, if it has taken the whole
    request and listens; what it sends is sent. That message has ``draining``.
    """

    cycle: RequestResponseCycle
    """uvicorn's side of it, which is set when it is made, before the application is called."""

    def __init__(self, application: "ASGIApp") -> None:
        self._application = application
        self._has_all = False  # of the request
        self._is_draining = False  # and the application is not notified yet
        self._is_notified = False

    async def __call__(self, scope: "Scope", _: "Receive", __: "Send") -> Any:
        """Have the application answer; return what it returns."""
        scope["extensions"] = {"tamed.client": {"left": lambda: self.cycle.disconnected}}
        try:
            return await self._application(scope, self._receive, self.cycle.send)  # type: ignore[arg-type]
        except Exception as error:
            if not self._is_notified:
                raise
            log.info("an application ended when its client had left: %s", reason(error))
            return None
        except asyncio.CancelledError:
            if not self.cycle.disconnected:
                raise
            log.info("cut what an application still did for a client that had left")
            return None
        finally:
            if self._is_notified and not self.cycle.response_complete:
                self.cycle.disconnected = True  # an incomplete answer must not look complete
                self.cycle.transport.close()

    def notify_draining(self) -> None:
        """Notify the application, if it listens, that it should come to an end."""
        self._is_draining = True
        self.cycle.message_event.set()

    def notify_left(self) -> None:
        """Notify the application that its client has left."""
        if not self.cycle.response_complete:
            self.cycle.disconnected = True
        self.cycle.message_event.set()

    async def _receive(self) -> Any:
        while not (self._has_all and self._is_draining):
            message: Any = await self.cycle.receive()
            if message["type"] == "http.disconnect":
                self._is_notified = not self.cycle.response_complete
                return message
            if not self._has_all:
                self._has_all = not message["more_body"]
                return message
        self._is_draining = False
        self._is_notified = True
        return {"type": "http.disconnect", "draining": True}


class UvicornProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with our logs, and its requests as exchanges.

    It asks itself, and not the transport, to pause and resume reading.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = log
        self.access_logger = access_log
        self.access_log = config.access_log
        self._exchanges: deque[Exchange] = deque()  # the one that is served, and pipelined ones

    @property
    def current_exchange(self) -> Exchange | None:
        """The exchange that is being served."""
        return self._exchanges[0] if self._exchanges else None

    @property
    def latest_cycle(self) -> RequestResponseCycle | None:
        """The request that came last, if any came."""
        return self.cycle

    @property
    def owes_answer(self) -> bool:
        """Whether a request has no complete answer yet."""
        return self.latest_cycle is not None and not self.latest_cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to serve a connection."""
        super().connection_made(transport)
        self.flow = FlowControl(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the applications, and forget the requests that nobody has begun to answer."""
        self.pipeline.clear()
        for exchange in self._exchanges:  # uvicorn does so for the latest only
            exchange.notify_left()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self.server_state.default_headers = _date(int(time.time()))

    def on_headers_complete(self) -> None:
        """Begin to serve a request, or queue it behind the one that is being served."""
        exchange = Exchange(self.config.loaded_app)
        self.app = exchange
        super().on_headers_complete()
        exchange.cycle = self.cycle
        self._exchanges.append(exchange)

    def on_response_complete(self) -> None:
        """Begin to serve the next request, if it has come."""
        self._exchanges.popleft()
        super().on_response_complete()

    def stop_keep_alive_timer(self) -> None:
        """Do not close the connection for want of another request: it is coming."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None


@lru_cache(maxsize=1)
def _date(second: int) -> list[tuple[bytes, bytes]]:
    """Return the headers that every answer has."""
    return [(b"date", formatdate(second, usegmt=True).encode())]
