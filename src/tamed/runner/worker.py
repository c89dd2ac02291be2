"""A worker: the process that runs the application, under a supervisor.

It is run as ``python -m tamed.runner.worker NAME NUMBER``; name and number are for those who look at
processes.

It does steps 5 to 11 of a daemon's life; the supervisor does the others. It is a fresh interpreter each time,
so the code and the files it reads are those of now.
"""

import asyncio
import faulthandler
import io
import logging
import os
import select
import socket
import sys
from typing import NoReturn

from tamed.config import Job
from tamed.errors import TamedError, exit_code, status_of
from tamed.net import Gate, Server, Surroundings, install
from tamed.runner._channel import Channel, Message
from tamed.runner._explain import explain
from tamed.runner._identity import drop_to, identity_of
from tamed.runner._layout import layout_of
from tamed.runner._life import Ending, live
from tamed.runner._link import Link, SupervisedSource
from tamed.runner._logging import log_to
from tamed.runner._loop import loop_factory
from tamed.runner._pipe_handler import PipeHandler
from tamed.runner._spawn import CHANNEL, RECORDS
from tamed.runner._wear import wearing
from tamed.service import Application, Service

__all__ = ["main"]


def main() -> NoReturn:
    """Run as a worker, and exit with the application's status."""
    _take_over_descriptors()
    channel = Channel(socket.socket(fileno=CHANNEL))
    try:
        status = _work(channel, _first_order(channel))
    except TamedError as error:
        status = status_of(error)
        _say(channel, {"fault": {"lines": list(explain(error)), "status": status}})
    except SystemExit as error:
        status = exit_code(error)
        _say(channel, {"leaving": status})
    logging.shutdown()
    sys.exit(status)


def _take_over_descriptors() -> None:
    """Keep ours to ourselves, and let what is printed be seen when it is printed."""
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    faulthandler.enable()  # after a crash, and by the watchdog, the stacks of all threads are in the log
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _work(channel: Channel, order: Message) -> int:
    handler = PipeHandler(RECORDS)
    job = Job.from_data(order["job"])
    deployment = job.deployment()
    settings = job.settings(deployment)
    log_to(handler, layout_of(order["layout"]), settings.log)
    identity = identity_of(settings.daemon)
    gate = Gate(is_open=False)
    link = Link(channel, lambda: _report(application), order["beat"], gate)
    install(Surroundings(SupervisedSource(link), settings.daemon.drain_timeout, gate))
    application = job.load(deployment)

    async def prepared() -> None:
        await link.prepared()
        drop_to(settings.daemon, identity)
        link.say({"state": "starting"})

    def ready() -> None:
        link.say({"state": "ready"})

    def accepted() -> int:
        return sum(server.accepted for server in _servers(application))

    def worn(why: str) -> None:
        link.say({"worn": why})

    async def run() -> Ending:
        with link.open(), handler.open(), wearing(settings.daemon, accepted, worn):
            return await live(application, prepared=prepared, ready=ready)

    with asyncio.Runner(loop_factory=loop_factory(settings.daemon.loop)) as runner:
        ending = runner.run(run())
    if ending.signal is None:
        _say(channel, {"leaving": ending.status})
    return ending.status


def _first_order(channel: Channel) -> Message:
    while True:
        select.select([channel], [], [])
        for message, _ in channel.receive():
            return message
        if channel.closed:
            sys.exit("the supervisor is gone")


def _say(channel: Channel, message: Message) -> None:
    """Send the last words of this process; if the supervisor is gone, nobody is there to hear them."""
    try:
        channel.send(message)
    except OSError:
        return


def _report(application: Application) -> Message:
    """Return what `tamed status` shows of this worker."""
    servers = _servers(application)
    return {
        "connections": sum(server.connections for server in servers),
        "accepted": sum(server.accepted for server in servers),
        "tree": _tree(application),
    }


def _servers(application: Application) -> list[Server]:
    return [service for service in application.walk() if isinstance(service, Server)]


def _tree(service: Service) -> Message:
    return {
        "name": service.name,
        "state": service.state.value,
        "restarts": service.restarts,
        "summary": service.summary,
        "children": [_tree(child) for child in service.children],
    }


if __name__ == "__main__":
    main()
