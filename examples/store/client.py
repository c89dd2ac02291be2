"""A client of the store: ``python client.py set poem Ecstasy``. It waits for a server to come."""

import asyncio
import sys
from collections import deque
from typing import cast

from tamed import ClientService


class Asker(asyncio.Protocol):
    """Sends a line for each request. The answers come in the same order."""

    def __init__(self) -> None:
        self.received = b""
        self.waiting: deque[asyncio.Future[str]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def ask(self, request: str) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        self.transport.write(f"{request}\n".encode())
        return await answer

    def data_received(self, data: bytes) -> None:
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            self.waiting.popleft().set_result(line.decode())

    def connection_lost(self, error: Exception | None) -> None:
        for answer in self.waiting:
            answer.set_exception(ConnectionError("the store has closed the connection"))


async def main(request: str) -> None:
    async with ClientService("localhost:10000", Asker, name="store") as client:
        asker = await client.wait_connected()
        print(await asker.ask(request))


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:])))
