"""A content as a store reads it, whole or block by block: seen to be what was written, in every store alike."""

import hashlib
from collections.abc import Sequence
from typing import Any

from engine.queue.errors import NoSuchMessage, QueueError


def whole_of(number: int, row: Sequence[Any] | None) -> bytes:
    """The content of a message of which a row says the size, the digest and all of it, if it is there.

    Raises NoSuchMessage without a row, and QueueError when it is not what was written.
    """
    if row is None:
        raise _no_such(number)
    size, digest, content = row
    if content is None:
        raise missing(number)
    if len(content) != size or hashlib.sha256(content).digest() != digest:
        raise _damaged(number)
    return bytes(content)


class Body:
    """One message's content, of which `given` bytes have been read so far, a `block` of bytes at a time.

    A store has `first` and `next` to it, which read on whatever connection they are called with.
    """

    def __init__(self, message: int, block: int) -> None:
        self.message = message
        self.block = block
        self.size = 0
        self.given = 0
        self._wanted = b""
        self._digest = hashlib.sha256()

    def begun(self, row: Sequence[Any] | None) -> Any:
        """Take what a row says first: size, digest, how long the content is (None: missing), and some of it; give that.

        Raises NoSuchMessage without a row, and QueueError where the content is missing or of another size.
        """
        if row is None:
            raise _no_such(self.message)
        self.size, digest, length, some = row
        if length is None:
            raise missing(self.message)
        if length != self.size:
            raise _damaged(self.message)
        self._wanted = bytes(digest)
        return some

    def checked(self, block: bytes) -> bytes:
        """The next block. Raises QueueError in place of the last one where all is not what was written."""
        self._digest.update(block)
        self.given += len(block)
        is_last = self.given >= self.size
        if (is_last and (self.given, self._digest.digest()) != (self.size, self._wanted)) or not (block or is_last):
            raise _damaged(self.message)
        return block


def missing(number: int) -> QueueError:
    """There is a message without a content."""
    return QueueError(f"the body of message {number} is missing")


def _no_such(number: int) -> QueueError:
    return NoSuchMessage(f"there is no message {number} in the queue")


def _damaged(number: int) -> QueueError:
    return QueueError(f"the body of message {number} is damaged")
