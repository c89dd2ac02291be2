"""Fast poetry whose recitals are traced with OpenTelemetry. It prints the spans; in production, send them.

Tamed run examples/opentelemetry/traced.py, then nc localhost 10000.
"""

import asyncio
import uuid
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from tamed import Application, Service, StreamServer

POEM = Path(__file__).parent.parent / "poetry" / "ecstasy.txt"


class Tracing(Service):
    """Sends spans, as one instance for each worker."""

    async def start(self) -> None:
        """Begin: here, not at import, since the exporter has a thread, and threads do not survive a fork."""
        instance = {"service.name": "traced", "service.instance.id": str(uuid.uuid4())}
        self.provider = TracerProvider(resource=Resource.create(instance))
        self.provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
        self.tracer = self.provider.get_tracer("traced")
        self.tracer.start_span("start").end()

    async def stop(self) -> None:
        """Send what is left, and end."""
        await asyncio.to_thread(self.provider.shutdown)


tracing = Tracing("tracing")


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the poem, in a span."""
    with tracing.tracer.start_as_current_span("recite") as span:
        poem = POEM.read_bytes()
        span.set_attribute("poem.bytes", len(poem))
        writer.write(poem)
        await writer.drain()


application = Application("traced", tracing, StreamServer("localhost:10000", recite))
