"""A few slots in which large messages are dealt with, given out in turn to the clients that wait."""

import asyncio
from collections import deque


class Slots:
    """So many may be taken at a time. Whoever waits has a turn with every other client, however much each brings."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the client whose turn is next comes first

    async def take(self, client: str) -> None:
        """Wait for a slot; it must be given back with `leave`."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given a slot in this very moment
                self.leave()
            raise

    def leave(self) -> None:
        """Give a slot back, to the first that still waits of the client whose turn it is."""
        while self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
