"""What it wins that servers step the event loop's coroutines by hand: ``python -m bench.openings [ROUNDS]``.

`TransportOpener` steps the coroutines that open transports, where a task for each connection would do. A
round measures each server both ways, in a random order, and the table has the medians of the CPU for a
connection. With ``--serve`` it is one of the servers.
"""

import asyncio
import random
import statistics
import sys
from functools import partial
from typing import Any

from bench.load import Load
from bench.machine import LOAD_CORE
from bench.process import HOST, POEM, Process, command, free_port

_SERVERS = [(loop, kind) for loop in ("uvloop", "asyncio") for kind in ("StreamServer", "ProtocolServer")]
_CASES = [(*server, way) for server in _SERVERS for way in ("hand", "task")]
_CONNECTIONS = 4_000
_WARM_UP = 500


def main(rounds: int) -> None:
    """Measure, and print a table."""
    cpu: dict[tuple[str, str, str], list[float]] = {case: [] for case in _CASES}
    for _ in range(rounds):
        for case in random.sample(_CASES, len(_CASES)):
            cpu[case].append(_cpu_each(*case))
    for server in _SERVERS:
        hand, task = (cpu[(*server, way)] for way in ("hand", "task"))
        won = statistics.median(1 - ours / other for ours, other in zip(hand, task, strict=True))
        ours, other = statistics.median(hand) * 1e6, statistics.median(task) * 1e6
        print(f"{', '.join(server):24} {ours:6.1f} us by hand, {other:6.1f} us by tasks: wins {won:.0%}")


def _cpu_each(loop: str, kind: str, way: str) -> float:
    """Return the seconds of CPU that a server takes for a connection."""
    port = free_port()
    words = command(sys.executable, "-m", "bench.openings", "--serve", port, loop, kind, way)
    with Process(words, port) as server:
        Load((HOST, port), [POEM], _WARM_UP, cpu=LOAD_CORE).run()
        before = server.cpu()
        result = Load((HOST, port), [POEM], _CONNECTIONS, cpu=LOAD_CORE).run()
        assert result.failures == 0
        return (server.cpu() - before) / result.ok


def _serve(port: str, loop: str, kind: str, way: str) -> None:
    """Send the poem to each client until this is killed."""
    import uvloop

    from tamed.net import server as servers
    from tamed.net._connection import Connection, TransportOpener
    from tamed.net.stream import ProtocolServer, StreamServer

    class TaskOpener(TransportOpener):
        def begin(self, connection: Connection, opening: Any) -> None:
            asyncio.get_running_loop().create_task(opening).add_done_callback(partial(self._done, connection))

        def _done(self, connection: Connection, task: "asyncio.Task[Any]") -> None:
            connection.transport = task.result()[0]

    class Reciter(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(poem)
            transport.close()

    async def recite(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(poem)

    async def forever() -> None:
        endpoint = f"{HOST}:{port}"
        stream = kind == "StreamServer"
        async with StreamServer(endpoint, recite) if stream else ProtocolServer(endpoint, Reciter):
            await asyncio.Event().wait()

    if way == "task":
        servers.TransportOpener = TaskOpener  # type: ignore[misc]
    poem = POEM.read_bytes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(forever())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(*sys.argv[2:])
    else:
        main(int((sys.argv[1:] or ["9"])[0]))
