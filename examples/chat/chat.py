"""A chat over WebSockets, beside a background job that says how many are there. Both share one room.

It takes the extra: pip install 'tamed[web]'. Tamed run examples/chat/chat.py, and open http://localhost:10080/
in two windows of a browser.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tamed import Application, TimerService
from tamed.web.server import WebServer

WAITING = 100  # messages for one client; who takes none of so many misses some

PAGE = b"""<!doctype html>
<title>Chat</title>
<form><input autofocus></form>
<pre></pre>
<script>
  let room
  const show = text => document.querySelector("pre").prepend(text + "\\n")
  const enter = () => {
    room = new WebSocket(location.href.replace("http", "ws") + "room")
    room.onmessage = event => show(event.data)
    room.onclose = () => setTimeout(enter, 500)  // a reload of the daemon closes it with 1012
  }
  enter()
  document.querySelector("form").onsubmit = event => {
    event.preventDefault()
    room.send(event.target[0].value)
    event.target[0].value = ""
  }
</script>
"""


class Room:
    """Those who are in the chat, each with the messages that wait for it."""

    def __init__(self) -> None:
        self.members: set[asyncio.Queue[str]] = set()

    @contextmanager
    def entered(self) -> Iterator[asyncio.Queue[str]]:
        member: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self.members.add(member)
        try:
            yield member
        finally:
            self.members.discard(member)

    def say(self, text: str) -> None:
        for member in self.members:
            if not member.full():
                member.put_nowait(text)

    async def report(self) -> None:
        self.say(f"* {len(self.members)} in the room")


async def chat(scope, receive, send):
    """The application (ASGI): a page, and the room of the server's state."""
    if scope["type"] == "websocket":
        await receive()  # that somebody wants to come in
        await send({"type": "websocket.accept"})
        await attend(scope["state"]["room"], receive, send)
    else:
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(PAGE))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})


async def attend(room, receive, send):
    with room.entered() as member:
        forwarding = asyncio.create_task(forward(member, send))
        try:
            while (message := await receive())["type"] == "websocket.receive":
                room.say(message.get("text") or "")
        finally:
            forwarding.cancel()


async def forward(member, send):
    while True:
        await send({"type": "websocket.send", "text": await member.get()})


room = Room()

application = Application("chat")
application.add(TimerService(1, room.report, name="report"))
application.add(WebServer(chat, "localhost:10080", lifespan=False, state={"room": room}))
