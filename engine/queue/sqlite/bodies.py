"""Reading a content from the store, block by block (see engine.queue.bodies)."""

import sqlite3

from engine.queue import bodies


def whole(connection: sqlite3.Connection, number: int) -> bytes:
    """The content as it was queued. Raises NoSuchMessage, and QueueError when it is not what was written."""
    row = connection.execute(
        "SELECT m.size, b.sha256, b.content FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = ?",
        (number,),
    ).fetchone()
    return bodies.whole_of(number, row)


class Body(bodies.Body):
    """One message's content, read by whichever connections `first` and then `next` are called with.

    No snapshot is held between two blocks, which would keep the log from being emptied for as long as a slow peer
    reads: a content is never changed, and one that leaves meanwhile is an error.
    """

    def first(self, connection: sqlite3.Connection) -> bytes:
        """The first block, and `size`. Raises NoSuchMessage, and QueueError where it is missing or damaged."""
        row = connection.execute(
            "SELECT m.size, b.sha256, length(b.content), CASE WHEN m.size <= ? THEN b.content END "
            "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = ?",
            (self.block, self.message),
        ).fetchone()
        whole = self.begun(row)
        return self.checked(bytes(whole) if whole is not None else self._read(connection))

    def next(self, connection: sqlite3.Connection) -> bytes:
        """The next block; never empty. Raises QueueError in place of the last where all is not what was written."""
        return self.checked(self._read(connection))

    def _read(self, connection: sqlite3.Connection) -> bytes:
        # Only the pages of this block are read; substr() in SQL would read the whole content each time.
        with connection.blobopen("body", "content", self.message, readonly=True) as blob:
            blob.seek(self.given)
            return blob.read(self.block)
