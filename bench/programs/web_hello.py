"""A short answer over HTTP, and an echo over WebSocket: ``asgi`` for all servers that speak it."""

from typing import Any

HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"12")],
}
BODY = {"type": "http.response.body", "body": b"Hello world\n"}


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request, or echo messages until the client leaves."""
    if scope["type"] == "http":
        await send(HEAD)
        await send(BODY)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
