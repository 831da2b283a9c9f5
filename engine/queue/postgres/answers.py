"""Answers that are costly to find: given again for a while, and found for one who asks at a time.

Consoles ask once a second: however long the queue is and however many look, answering them takes no more than a
twentieth of a core, and one of the connections for questions.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from engine.base.kept import Kept
from engine.queue.bounds import ANSWERS_KEPT, COSTLY, RESTS

T = TypeVar("T")


class CostlyAnswers:
    """Finds answers of one kind, and remembers the last of them if they were costly.

    What took long once may have had to wait for a connection, or the server for its disk: an answer is as costly as
    the cheaper one of the last two to the same question.
    """

    def __init__(self) -> None:
        self._kept = Kept[Hashable, tuple[float, Any, float]](ANSWERS_KEPT)
        self._finding = asyncio.Lock()

    async def of(self, asked: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """The answer to what was `asked`, kept or found now."""
        async with self._finding:
            until, answer, before = self._kept.get(asked, (0.0, None, 0.0))
            started = time.monotonic()
            if started < until:
                kept: T = answer
                return kept
            found = await find()
            ended = time.monotonic()
            cost = min(before, ended - started)
            self._kept[asked] = (ended + RESTS * cost if cost > COSTLY else 0.0, found, ended - started)
            return found
