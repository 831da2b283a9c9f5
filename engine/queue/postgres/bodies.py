"""Reading a content from the store, block by block (see engine.queue.bodies)."""

from engine.queue import bodies
from engine.queue.postgres.transaction import Snapshot


async def whole(s: Snapshot, number: int) -> bytes:
    """The content as it was queued. Raises NoSuchMessage, and QueueError when it is not what was written."""
    row = await s.row(
        "SELECT m.size, b.sha256, b.content "
        "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = $1",
        number,
    )
    return bodies.whole_of(number, row)


class Body(bodies.Body):
    """One message's content, read on whichever snapshots `first` and then `next` are called with.

    No snapshot is held between two blocks, which would keep what has left the tables from being cleaned up for as long
    as a slow peer reads: a content is never changed, and one that leaves meanwhile is an error.
    """

    async def first(self, s: Snapshot) -> bytes:
        """The first block, and `size`. Raises NoSuchMessage, and QueueError where it is missing or damaged."""
        row = await s.row(
            "SELECT m.size, b.sha256, length(b.content), substr(b.content, 1, $2) "
            "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = $1",
            self.message,
            self.block,
        )
        return self.checked(bytes(self.begun(row)))

    async def next(self, s: Snapshot) -> bytes:
        """The next block; never empty. Raises QueueError in place of the last where all is not what was written."""
        # Only the part of the content that is asked for is read: it is stored as it is (see schema.sql).
        block = await s.value(
            "SELECT substr(content, $2, $3) FROM body WHERE message = $1", self.message, self.given + 1, self.block
        )
        if block is None:
            raise bodies.missing(self.message)
        return self.checked(bytes(block))
