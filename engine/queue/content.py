"""A message's content as it goes out: read from the store block by block, so that memory holds one block of it."""

from collections.abc import AsyncIterator, Awaitable, Callable

BLOCK = 512 * 1024  # bytes that are read at a time: most messages are one block, a large one costs few questions


class Content:
    """The content of one message: `size` bytes, read once and in order.

    `first` are those up to BLOCK; `more` gives the next ones, BLOCK at the most. A content of one block is known to be
    right. A longer one is only when all of it was read: `more` raises QueueError in place of the last block where it
    is not what was written, and then what was given before must not be taken for it.
    """

    def __init__(self, size: int, first: bytes, more: Callable[[], Awaitable[bytes]]) -> None:
        self.size = size
        self._first = first
        self._more = more

    @property
    def whole(self) -> bytes | None:
        """All of it where that is one block."""
        return self._first if len(self._first) == self.size else None

    async def blocks(self) -> AsyncIterator[bytes]:
        """Give the blocks. Raises QueueError."""
        block, self._first = self._first, b""
        given = len(block)
        yield block
        while given < self.size:
            block = await self._more()
            given += len(block)
            yield block
