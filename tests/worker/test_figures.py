"""What a worker measures of itself for the operations endpoint."""

import asyncio
import os
from pathlib import Path

import pytest
import trustme

from tamed.metrics.table import TableReader, create
from tamed.metrics.values import Values
from tamed.net.stream import StreamServer
from tamed.service.application import Application
from tamed.service.restart import Backoff, Restart
from tamed.service.service import Service
from tamed.testing.running import running
from tamed.worker.report import measure
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


class Stumbling(Service):
    """Fails once."""

    name = "stumbling"
    restart = Restart("always", backoff=Backoff(first=0))

    def __init__(self) -> None:
        super().__init__()
        self.again = asyncio.Event()

    async def run(self) -> None:
        """Fail at the first time."""
        if not self.restarts:
            raise OSError("stumbled")
        self.again.set()
        await asyncio.Event().wait()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await reader.read()


async def test_figures_are_rows_of_the_table(tmp_path: Path) -> None:
    """Connections and restarts by service, the end of each certificate, and lost lines."""
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    stumbling = Stumbling()
    server, secret = (
        StreamServer(each, _greet, name=name)
        for each, name in (("127.0.0.1:0", "plain"), (f"tls://127.0.0.1:0?cert={pem}", "secret"))
    )
    application = Application("verse", server, secret, stumbling)
    memory = create()
    values = Values()
    values.move(os.dup(memory))
    async with asyncio.timeout(PATIENCE), running(application):
        await stumbling.again.wait()
        host, _, port = server.addresses[0].rpartition(":")
        reading, writer = await asyncio.open_connection(host, int(port))
        assert await reading.readline() == b"hello\n"
        task = asyncio.create_task(measure(values, application, lambda: 3))
        await asyncio.sleep(0)  # the first step of the task
        found = _read(TableReader(memory))
        task.cancel()
        writer.close()
        [certificate] = secret.certificates
        address = server.addresses[0]
    assert found["tamed_connections_open", "plain", address] == 1
    assert found["tamed_connections_accepted_total", "plain", address] == 1
    assert found["tamed_connections_open", "secret", certificate.endpoint] == 0
    assert found["tamed_service_restarts_total", "stumbling"] == 1
    assert found["tamed_service_restarts_total", "plain"] == 0
    assert found["tamed_log_unsent_lines_total",] == 3
    assert certificate.ends is not None
    assert (
        found["tamed_certificate_end_timestamp_seconds", certificate.endpoint, str(pem)] == certificate.ends
    )
    os.close(memory)


def _read(reader: TableReader) -> dict[tuple[str, ...], float]:
    cells = reader.read()
    return {
        (series.sample, *(text for _, text in series.labels)): value
        for series, value in zip(reader.series, cells[::2], strict=True)
    }
