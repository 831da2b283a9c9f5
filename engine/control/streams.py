"""The live stream of events: one JSON object a line, for as long as the follower reads and the engine runs."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from engine.control import presentation
from engine.control.feed import EventLog
from engine.control.requests import Wrong
from engine.model.event import Event
from engine.queue.errors import QueueError

_BATCH = 200  # events in one write
_FOLLOWERS = 64
LOOK_EVERY = 1.0  # seconds between looks for events of other nodes, while somebody follows


class Elsewhere(Protocol):
    """Who knows of the events of other nodes."""

    async def events_of_all(self, after: int) -> Sequence[Event] | None:
        """Those after one, at whichever node; None where this engine is alone, and is told of all as they happen."""
        ...

    async def newest_event(self) -> int:
        """The number of the newest."""
        ...


class EventStreams:
    """Serves followers of an event log.

    A blank line every `sign_of_life` seconds shows that the line is up; a follower that takes nothing for
    `patience` seconds is cut off. `stop` ends all streams in good order. Where others may share the queue `elsewhere`
    gives their events with ours.
    """

    def __init__(
        self,
        events: EventLog,
        *,
        elsewhere: Elsewhere | None = None,
        sign_of_life: float = 15.0,
        patience: float = 10.0,
    ) -> None:
        self._events = events
        self._elsewhere = elsewhere
        self._sign_of_life = sign_of_life
        self._patience = patience
        self._stopping = asyncio.Event()
        self._followers = 0

    def stop(self) -> None:
        """End every stream."""
        self._stopping.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream every event from now on. Raises Wrong when too many follow already, QueueError as `elsewhere` does."""
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
            last = await self._elsewhere.newest_event() if self._elsewhere is not None else 0
            try:
                async with asyncio.timeout(self._patience):
                    await response.prepare(request)
                    await response.write(b"\n")  # so that the follower knows at once that it follows
                await self._stream(feed, response, last)
                async with asyncio.timeout(self._patience):
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # the follower has gone
        return response

    async def _stream(self, feed: asyncio.Queue[Event], response: web.StreamResponse, last: int) -> None:
        """All events after the last one."""
        told: deque[Event] = deque(maxlen=feed.maxsize)  # and not passed on yet
        stopping = asyncio.ensure_future(self._stopping.wait())
        getting = asyncio.ensure_future(feed.get())
        loop = asyncio.get_running_loop()
        pause = self._sign_of_life if self._elsewhere is None else min(LOOK_EVERY, self._sign_of_life)
        wrote = loop.time()
        try:
            while not stopping.done():
                await asyncio.wait({getting, stopping}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    told.extend((getting.result(), *_more(feed)))
                    getting = asyncio.ensure_future(feed.get())
                events = await self._of_all(told, last)
                if events is not None:
                    told.clear()
                    last = max((last, *(event.seq for event in events)))
                if events or loop.time() - wrote >= self._sign_of_life - 0.1:
                    async with asyncio.timeout(self._patience):
                        await response.write(_lines(events or ()) or b"\n")
                    wrote = loop.time()
        finally:
            for task in (stopping, getting):
                task.cancel()
            await asyncio.gather(stopping, getting, return_exceptions=True)

    async def _of_all(self, told: Sequence[Event], last: int) -> Sequence[Event] | None:
        """Each event after the last once, in their order: those of all nodes; where this one is alone what it was told.

        None where that cannot be known now: what was told is to be kept until it is.
        """
        if self._elsewhere is None:
            return list(told)
        try:
            found = await self._elsewhere.events_of_all(last)
        except QueueError:
            return None
        return [event for event in told if event.seq > last] if found is None else found


def _more(feed: asyncio.Queue[Event]) -> list[Event]:
    return [feed.get_nowait() for _ in range(min(feed.qsize(), _BATCH))]


def _lines(events: Sequence[Event]) -> bytes:
    return b"".join(presentation.encoded(event) + b"\n" for event in events)
