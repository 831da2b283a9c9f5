"""The live stream of events: one JSON object a line, for as long as the follower reads and the engine runs."""

import asyncio

from aiohttp import web

from engine.control import presentation
from engine.control.feed import EventLog
from engine.control.requests import Wrong
from engine.model.event import Event

_BATCH = 200  # events in one write
_FOLLOWERS = 64


class EventStreams:
    """Serves followers of an event log.

    A blank line every `sign_of_life` seconds shows that the line is up; a follower that takes nothing for
    `patience` seconds is cut off. `stop` ends all streams in good order.
    """

    def __init__(self, events: EventLog, *, sign_of_life: float = 15.0, patience: float = 10.0) -> None:
        self._events = events
        self._sign_of_life = sign_of_life
        self._patience = patience
        self._stopping = asyncio.Event()
        self._followers = 0

    def stop(self) -> None:
        """End every stream."""
        self._stopping.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream every event from now on. Raises Wrong when too many follow already."""
        if self._followers >= _FOLLOWERS:
            raise Wrong("too many follow the events already", allowed=f"{_FOLLOWERS} at a time", status=503)
        self._followers += 1
        try:
            return await self._serve(request)
        finally:
            self._followers -= 1

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        async with self._events.follow() as feed:
            try:
                async with asyncio.timeout(self._patience):
                    await response.prepare(request)
                    await response.write(b"\n")  # so that the follower knows at once that it follows
                await self._stream(feed, response)
                async with asyncio.timeout(self._patience):
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # the follower has gone
        return response

    async def _stream(self, feed: asyncio.Queue[Event], response: web.StreamResponse) -> None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        getting = asyncio.ensure_future(feed.get())
        try:
            while not stopping.done():
                await asyncio.wait({getting, stopping}, timeout=self._sign_of_life, return_when=asyncio.FIRST_COMPLETED)
                lines = b"\n"
                if getting.done():
                    lines = _lines([getting.result(), *_more(feed)])
                    getting = asyncio.ensure_future(feed.get())
                async with asyncio.timeout(self._patience):
                    await response.write(lines)
        finally:
            for task in (stopping, getting):
                task.cancel()
            await asyncio.gather(stopping, getting, return_exceptions=True)


def _more(feed: asyncio.Queue[Event]) -> list[Event]:
    return [feed.get_nowait() for _ in range(min(feed.qsize(), _BATCH))]


def _lines(events: list[Event]) -> bytes:
    return b"".join(presentation.encoded(event) + b"\n" for event in events)
