"""The poem over HTTP: ``wsgi`` for gunicorn, ``asgi`` for uvicorn. The poem's file is in BENCH_POEM.

BENCH_IMPORT_SECONDS is how long the import takes.
"""

import os
import time
from pathlib import Path

time.sleep(float(os.environ.get("BENCH_IMPORT_SECONDS", "0")))

poem = Path(os.environ["BENCH_POEM"]).read_bytes()
length = len(poem)


def wsgi(_, start_response):
    """Send the poem."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return [poem]


async def asgi(scope, receive, send):
    """Send the poem."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": poem})
