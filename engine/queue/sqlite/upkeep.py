"""How the store's file is kept: its log copied, old events removed, room left for what is queued and given back."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from engine.base.text import clean
from engine.queue.errors import QueueError
from engine.queue.sqlite.connection import BUSY_SECONDS, LOG_KEPT, sure

PRUNE_EVERY = 1000  # events written between two prunings
PRUNE_AT_ONCE = 5000  # events removed in one transaction
# The log is copied into the file after so many groups, bytes of content or changed rows, whichever comes first.
CHECKPOINT_GROUPS = 100
CHECKPOINT_WEIGHT = 8 * 2**20
CHECKPOINT_CHANGES = 20_000
LAST_ROOM = 2**20  # bytes of the disk that are for what is queued already: claims, results, orders
SPARE_KEPT = 64 * 2**20  # bytes the mail has left that are kept for the mail to come
_PAGES_AT_LEAST = 64  # that a transaction may change: the rows, their indexes, and what heads it all
_FRAME = 24  # bytes with which the log heads each page
GIVEN_BACK_AT_ONCE = 512  # pages; whoever comes meanwhile waits for so many


class Upkeep:
    """Keeps the file of a writer's connection in order; used in the writer's thread.

    `spare` are the bytes of the file that nothing is in; `uncopied` those that the log held after it was last copied as
    far as it could be, and `uncopied_since` when (by `now`) it could first not be copied whole, 0: it could. A reader
    that stays with what it saw keeps the log from being copied, and begun anew, beyond that. Any thread may read these.
    All methods raise sqlite3.Error, Unsure where a commit or copying the log failed, and may leave a transaction open
    then.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, events_kept: int, now: Callable[[], float]) -> None:
        self._connection = connection
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._events_kept = events_kept
        self._now = now
        self._since_prune = PRUNE_EVERY  # so that the first group prunes
        self._groups = 0
        self._weight = 0
        self._changes = connection.total_changes
        self._is_log_empty = False
        self._page_size = int(connection.execute("PRAGMA page_size").fetchone()[0])
        self.uncopied = 0
        self.uncopied_since = 0.0
        self.spare = self._spare_now()

    @property
    def is_log_copied(self) -> bool:
        """Whether nothing was committed since the log was copied last, as far as it could be."""
        return not self._groups

    @property
    def is_log_kept(self) -> bool:
        """Whether the log should be looked at again though nothing is committed: it may be copied, or shrink, later."""
        return self.uncopied > 0 or self._log_size() > LOG_KEPT

    @property
    def is_log_stuck(self) -> bool:
        """Whether more of the log cannot be copied than is kept of it in any case."""
        return self.uncopied > LOG_KEPT

    def leave_room(self, weight: int, changed: int) -> None:
        """See to it, before so many bytes of content and changed rows are committed, that the log can be copied then.

        A log that the file has no room to take in cannot be begun anew: nothing could be written any more, nor the disk
        be emptied. Content leaves room besides to send what is queued, for which claims and results are written. Raises
        sqlite3.Error, as for a full disk, and QueueError when the disk cannot be looked at.
        """
        file_grows = self._file_grows()
        if not weight and not file_grows:
            return
        pages = weight // self._page_size + _PAGES_AT_LEAST + changed // 2
        log_grows = min(pages, self._pages()) * (self._page_size + _FRAME)
        if self._is_log_empty:
            log_grows -= self._log_size()
        needed = file_grows + max(0, log_grows) + (max(0, LAST_ROOM - self._spare_now()) if weight else 0)
        if self._free() < needed:
            raise sqlite3.OperationalError("the disk is full")

    def committed(self, events: int, weight: int) -> None:
        """Count a group, with so many events and bytes of content."""
        self.spare = self._spare_now()
        self._is_log_empty = False
        self._since_prune += events
        self._groups += 1
        self._weight += weight

    def tend(self) -> None:
        """Remove events past the number kept, and copy the log into the file, where it is time for it."""
        if self._since_prune >= PRUNE_EVERY:
            self._prune()
        if (
            self._groups >= CHECKPOINT_GROUPS
            or self._weight >= CHECKPOINT_WEIGHT
            or self._connection.total_changes - self._changes >= CHECKPOINT_CHANGES
            or self._is_short()
        ):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Copy the log into the file. One that has grown beyond what is kept of it shrinks once all is copied."""
        self._groups = self._weight = 0
        self._changes = self._connection.total_changes
        logged, copied = self._copy("PASSIVE")
        if logged == copied and self._log_size() > LOG_KEPT:
            logged, copied = self._copy("TRUNCATE")
        if logged < 0:  # somebody else was copying it: nothing is known of it
            return
        self._is_log_empty = logged == copied
        self.uncopied = (logged - copied) * self._page_size
        if not self.uncopied:
            self.uncopied_since = 0.0
        elif not self.uncopied_since:
            self.uncopied_since = self._now()
        self.spare = self._spare_now()

    def _copy(self, how: Literal["PASSIVE", "TRUNCATE"]) -> tuple[int, int]:
        """Copy the log without waiting for anybody; give its pages, and how many of them have been copied so far."""
        if how == "PASSIVE":  # which never waits
            with sure():
                return _progress(self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)"))
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            with sure():
                return _progress(self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def give_back(self, may_go_on: Callable[[], bool]) -> None:
        """Give what is spare back to the file system, but for what is kept, piece by piece while `may_go_on`."""
        gave = False
        while self.spare > SPARE_KEPT and may_go_on():
            before = self.spare
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(f"PRAGMA incremental_vacuum({GIVEN_BACK_AT_ONCE})").fetchall()
            with sure():
                self._connection.execute("COMMIT")
            self.committed(0, GIVEN_BACK_AT_ONCE * self._page_size)
            self.tend()
            if self.spare >= before:
                break
            gave = True
        if gave:
            self.checkpoint()  # which is when the file shrinks

    def _prune(self) -> None:
        self._since_prune = 0
        self._connection.execute("BEGIN IMMEDIATE")
        cursor = self._connection.execute(
            "DELETE FROM event WHERE seq <= (SELECT max(seq) FROM event) - ? "
            "AND seq < (SELECT min(seq) FROM event) + ?",
            (self._events_kept, PRUNE_AT_ONCE),
        )
        with sure():
            self._connection.execute("COMMIT")
        if cursor.rowcount == PRUNE_AT_ONCE:
            self._since_prune = PRUNE_EVERY  # there is more: go on after the next group

    def _is_short(self) -> bool:
        """Whether little is left of the disk beside what the file needs to take in the log."""
        return (grows := self._file_grows()) > 0 and self._free() < grows + LAST_ROOM // 2

    def _file_grows(self) -> int:
        """Bytes by which the file grows once all is copied into it. Raises QueueError."""
        with _looking():
            return max(0, self._pages() * self._page_size - self._path.stat().st_size)

    def _pages(self) -> int:
        return int(self._connection.execute("PRAGMA page_count").fetchone()[0])

    def _free(self) -> int:
        """Bytes that are free in the file system. Raises QueueError."""
        with _looking():
            disk = os.statvfs(self._path)
        return disk.f_bavail * disk.f_frsize

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:  # whoever else had the file open was the last to close it
            return 0

    def _spare_now(self) -> int:
        """Bytes of the file that nothing is in. While the log cannot be begun anew they are of no help: it grows."""
        if self.is_log_stuck:
            return 0
        (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * self._page_size


def _progress(copying: sqlite3.Cursor) -> tuple[int, int]:
    """How many pages the log has, and how many are copied; -1: not known.

    One that gave no row has failed in nothing, or it would have raised: a store is not to be given up for that. (It was
    seen once in some 100,000 runs of the tests, on a machine with more to do than it could.)
    """
    row = copying.fetchone()
    return (-1, -1) if row is None else (int(row[1]), int(row[2]))


@contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise QueueError(f"the queue cannot be looked at: {clean(str(error))}") from error
