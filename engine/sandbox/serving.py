"""What the servers of the sandbox have in common: each connection is served by a task, and ends with it."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any


class Connections:
    """The connections of a server, `most` at a time; what comes when there are as many, or after `end`, is cut off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._tasks)

    def takes(self, writer: asyncio.StreamWriter) -> bool:
        """Whether a connection that has just been made is served; one that is not is cut off here."""
        if self._is_over or len(self._tasks) >= self._most:
            writer.transport.abort()
            return False
        return True

    def serve(self, writer: asyncio.StreamWriter, work: Coroutine[Any, Any, None]) -> None:
        """Serve a connection, which `work` closes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def begin(self) -> None:
        """Serve again what comes from now on."""
        self._is_over = False

    async def end(self) -> None:
        """End all of them; one that is only being made is cut off once it is."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # it may have been before its first step, and have closed nothing
            writer.transport.abort()
