"""Reading a content from the store, block by block, and seeing that it is what was written."""

import hashlib

from engine.queue.contract import NoSuchMessage, QueueError
from engine.queue.postgres.transaction import Snapshot


async def whole(s: Snapshot, number: int) -> bytes:
    """The content as it was queued. Raises NoSuchMessage, and QueueError when it is not what was written."""
    row = await s.row(
        "SELECT m.size, b.sha256, b.content "
        "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = $1",
        number,
    )
    if row is None:
        raise NoSuchMessage(f"there is no message {number} in the queue")
    size, digest, body = row
    if body is None:
        raise QueueError(f"the body of message {number} is missing")
    if len(body) != size or hashlib.sha256(body).digest() != digest:
        raise QueueError(f"the body of message {number} is damaged")
    return bytes(body)


class Body:
    """One message's content, read on whichever snapshots `first` and then `next` are called with.

    No snapshot is held between two blocks, which would keep what has left the tables from being cleaned up for as long
    as a slow peer reads: a content is never changed, and one that leaves meanwhile is an error.
    """

    def __init__(self, message: int, block: int) -> None:
        self.size = 0
        self._message = message
        self._block = block
        self._given = 0
        self._wanted = b""
        self._digest = hashlib.sha256()

    async def first(self, s: Snapshot) -> bytes:
        """The first block, and `size`. Raises NoSuchMessage, and QueueError where it is missing or damaged."""
        row = await s.row(
            "SELECT m.size, b.sha256, length(b.content), substr(b.content, 1, $2) "
            "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = $1",
            self._message,
            self._block,
        )
        if row is None:
            raise NoSuchMessage(f"there is no message {self._message} in the queue")
        self.size, digest, length, block = row
        if length is None:
            raise QueueError(f"the body of message {self._message} is missing")
        if length != self.size:
            raise self._damaged()
        self._wanted = bytes(digest)
        return self._checked(bytes(block))

    async def next(self, s: Snapshot) -> bytes:
        """The next block; never empty. Raises QueueError in place of the last where all is not what was written."""
        # Only the part of the content that is asked for is read: it is stored as it is (see schema.sql).
        block = await s.value(
            "SELECT substr(content, $2, $3) FROM body WHERE message = $1", self._message, self._given + 1, self._block
        )
        if block is None:
            raise QueueError(f"the body of message {self._message} is missing")
        return self._checked(bytes(block))

    def _checked(self, block: bytes) -> bytes:
        self._digest.update(block)
        self._given += len(block)
        is_last = self._given >= self.size
        if (is_last and (self._given, self._digest.digest()) != (self.size, self._wanted)) or not (block or is_last):
            raise self._damaged()
        return block

    def _damaged(self) -> QueueError:
        return QueueError(f"the body of message {self._message} is damaged")
