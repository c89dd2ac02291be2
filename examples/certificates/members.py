"""A server that only clients with a certificate reach, and that knows their names from it."""

import asyncio
import logging

from tamed import Application, StreamServer

log = logging.getLogger("members")

ENDPOINT = "tls://localhost:10443?cert=server.pem&key=server.key&client_ca=ca.pem"


def name_of(writer: asyncio.StreamWriter) -> str:
    """Return the common name of the client's certificate."""
    subject = writer.get_extra_info("peercert")["subject"]
    return next(value for ((key, value),) in subject if key == "commonName")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = name_of(writer)
    log.info("%s is here", name)
    writer.write(f"Good morning, {name}.\n".encode())


application = Application("members", StreamServer(ENDPOINT, greet, name="server"))
