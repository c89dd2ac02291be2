"""The operations process as a program: ``python -m tamed.ops NAME``, a child of the supervisor.

It serves HTTP at one endpoint, with Tamed's web server as its application, and sends requests to the
supervisor over its channel. It has no application code and no privileges.
"""

import asyncio
import logging
import socket
from typing import Final, NoReturn

from tamed.config.settings import Level
from tamed.ipc.channel import CHANNEL, RECORDS, Channel, first_order
from tamed.ipc.message import Message, read_seconds, read_text, read_texts
from tamed.log.layout import layout_of
from tamed.net.endpoint import Endpoint, UnixEndpoint
from tamed.net.listen import Gate, ServerEnvironment, set_environment
from tamed.net.stream import StreamServer
from tamed.ops.application import HostCheck, OpsApplication
from tamed.ops.health import AgentCheck
from tamed.ops.observer import Observer
from tamed.ops.source import Source
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.web.server import WebServer
from tamed.worker.life import StopRequests, live
from tamed.worker.link import Link, SupervisedSource
from tamed.worker.log_handler import PipeHandler, log_to
from tamed.worker.report import certificates_of
from tamed.worker.runtime import exit_after, set_up_process

__all__ = ["main"]

_DRAIN: Final = 1.0  # seconds for responses in progress
_CLIENTS: Final = 256


def main() -> NoReturn:
    """Serve the endpoint until the supervisor closes the channel."""
    set_up_process()
    channel = Channel(socket.socket(fileno=CHANNEL), takes_descriptors=True)
    exit_after(channel, lambda: _work(channel))


def _work(channel: Channel) -> int:
    order = first_order(channel)
    handler = PipeHandler(RECORDS)
    levels = [Level("", logging.INFO)]
    log_to(handler, layout_of(read_text(order, "layout")), levels, is_console=True)
    link = Link(channel, dict, read_seconds(order, "heartbeat"), Gate())
    set_environment(ServerEnvironment(SupervisedSource(link), _DRAIN))  # no other process serves its clients
    with asyncio.Runner() as runner:  # uvloop is not worth its memory here
        return runner.run(_live(link, handler, _application(link, order)))


def _application(link: Link, order: Message) -> Application:
    source = Source(link, lambda: certificates_of(application))
    endpoint = Endpoint.parse(read_text(order, "endpoint"))
    hosts = HostCheck(read_texts(order, "hosts"), checks=not isinstance(endpoint, UnixEndpoint))
    observer = Observer(source, read_text(order, "layout"))
    app = OpsApplication(source, hosts, observer)
    server = WebServer(app, endpoint, lifespan=False, access_log=None, max_connections=_CLIENTS)
    services: list[Service] = [observer, server]
    if agent := read_text(order, "agent"):
        services.append(StreamServer(agent, AgentCheck(source), name="agent", max_connections=_CLIENTS))
    application = Application("operations", *services)
    return application


async def _live(link: Link, handler: PipeHandler, application: Application) -> int:
    async def prepared() -> None:
        return

    requests = StopRequests(ends_process=True)
    with link.open(requests.request), handler.open():
        ending = await live(
            application,
            prepared=prepared,
            ready=lambda: None,
            process="the operations process",
            requests=requests,
        )
    return ending.status


if __name__ == "__main__":
    main()
