"""Reading a content from the store, block by block, and seeing that it is what was written."""

import hashlib
import sqlite3

from engine.queue.contract import NoSuchMessage, QueueError


def whole(connection: sqlite3.Connection, number: int) -> bytes:
    """The content as it was queued. Raises NoSuchMessage, and QueueError when it is not what was written."""
    row = connection.execute(
        "SELECT m.size, b.sha256, b.content FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise NoSuchMessage(f"there is no message {number} in the queue")
    size, digest, body = row
    if body is None:
        raise QueueError(f"the body of message {number} is missing")
    if len(body) != size or hashlib.sha256(body).digest() != digest:
        raise QueueError(f"the body of message {number} is damaged")
    return bytes(body)


class Body:
    """One message's content, read by whichever connections `first` and then `next` are called with.

    No snapshot is held between two blocks, which would keep the log from being emptied for as long as a slow peer
    reads: a content is never changed, and one that leaves meanwhile is an error.
    """

    def __init__(self, message: int, block: int) -> None:
        self.size = 0
        self._message = message
        self._block = block
        self._given = 0
        self._wanted = b""
        self._digest = hashlib.sha256()

    def first(self, connection: sqlite3.Connection) -> bytes:
        """The first block, and `size`. Raises NoSuchMessage, and QueueError where it is missing or damaged."""
        row = connection.execute(
            "SELECT m.size, b.sha256, length(b.content), CASE WHEN m.size <= ? THEN b.content END "
            "FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = ?",
            (self._block, self._message),
        ).fetchone()
        if row is None:
            raise NoSuchMessage(f"there is no message {self._message} in the queue")
        self.size, digest, length, whole = row
        if length is None:
            raise QueueError(f"the body of message {self._message} is missing")
        if length != self.size:
            raise self._damaged()
        self._wanted = bytes(digest)
        return self._checked(bytes(whole) if whole is not None else self._read(connection))

    def next(self, connection: sqlite3.Connection) -> bytes:
        """The next block; never empty. Raises QueueError in place of the last where all is not what was written."""
        return self._checked(self._read(connection))

    def _read(self, connection: sqlite3.Connection) -> bytes:
        # Only the pages of this block are read; substr() in SQL would read the whole content each time.
        with connection.blobopen("body", "content", self._message, readonly=True) as blob:
            blob.seek(self._given)
            return blob.read(self._block)

    def _checked(self, block: bytes) -> bytes:
        self._digest.update(block)
        self._given += len(block)
        is_last = self._given >= self.size
        if (is_last and (self._given, self._digest.digest()) != (self.size, self._wanted)) or not (block or is_last):
            raise self._damaged()
        return block

    def _damaged(self) -> QueueError:
        return QueueError(f"the body of message {self._message} is damaged")
