"""Clients of poetry servers, and what they should get."""

import socket
import ssl
from importlib.resources import files
from pathlib import Path

from tests.patience import PATIENCE

SHIPPED = (files("tamed.builtin") / "poetry" / "ecstasy.txt").read_bytes()
"""The poem that is served if no other is named."""

"""Seconds after which a client gives up; a test that passes does not come near it."""


def dial(address: str) -> socket.socket:
    """Connect to an address as the log tells it: ``127.0.0.1:10000``, ``[::1]:10000``, ``unix:/path``."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(address.removeprefix("unix:"))
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE)


def fetch(address: str) -> bytes:
    """Connect, and read to the end."""
    with dial(address) as client:
        return read_all(client)


def fetch_tls(address: str, authority: Path) -> bytes:
    """Connect in TLS to the name localhost, and read to the end."""
    context = ssl.create_default_context(cafile=authority)
    with dial(address) as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Read to the end."""
    chunks = []
    while chunk := client.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)
