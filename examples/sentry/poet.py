"""A server whose failures are in Sentry: its own, and those that it cannot report because it was killed.

It takes a library: pip install sentry-sdk. The address of the project is in ``SENTRY_DSN``.
"""

import asyncio

import sentry_sdk

from tamed import Application, Service, StreamServer, events


class Sentry(Service):
    """Sends exceptions of this worker, and what the supervisor tells of deaths and failed reloads."""

    async def start(self) -> None:
        """Begin: here, not at import, since the SDK has a thread, and threads do not survive a fork."""
        sentry_sdk.init()  # the DSN, the environment and the release are variables: SENTRY_...

    async def run(self) -> None:
        """Report events. Each one goes to one worker, so it is reported once."""
        async for event in events():
            if event["event"] in ("death", "stuck") or event.get("outcome") == "failed":
                with sentry_sdk.new_scope() as scope:
                    scope.set_context("event", event)
                    scope.capture_message(event["text"], "error")

    async def stop(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(sentry_sdk.flush, 5)


async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a verse. Its number comes from the client; a wrong one raises, is logged, and is in Sentry."""
    verses = [b"Science! true daughter of Old Time thou art!\n"]
    writer.write(verses[int(await reader.readline())])


application = Application(
    "poet", Sentry(name="sentry"), StreamServer("localhost:10000", recite, name="server")
)
