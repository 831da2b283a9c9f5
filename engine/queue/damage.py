"""Damaged pages of the store's file: what they hold is left out, and what of them holds no mail is made anew.

A page goes bad with the disk, or by somebody's hand. What is on it fails, each operation for itself, and all else goes
on. An index can be made anew from its table, and without the records of events and attempts mail still goes: these are
mended at once. The rest stays as it is until `smarthost check-spool --repair`.
"""

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from engine.events import Event
from engine.queue.connection import is_damage, sure
from engine.queue.migrating import schema
from engine.queue.rows import insert_event
from engine.text import clean

MENDINGS = 3  # in the life of a store: a disk that goes bad page by page is not to be mended for ever
LEFT_OUT = 10_000  # what is remembered as unreadable; an operation that meets more fails

_INDEXED = ("destination", "entry", "attempt", "exchange", "operation", "sts_policy", "event")
# Tables without which mail goes on, and what is said when they are begun anew.
_RECORDS = {
    "event": "the events kept until now cannot be read, and are set aside; no mail is concerned",
    "attempt": "the attempts recorded until now cannot be read, and are forgotten; no mail is lost, but what is being "
    "sent at this moment may be sent again",
}

_log = logging.getLogger(__name__)


class Damage:
    """What a store has met of damage. Written in the writer's thread, and read in any.

    `said` is SQLite's word for it, "" where none was met that stands. What is unreadable is noted by names: "mail", a
    message and a destination; "row", a message and the number of an entry that cannot be removed, or put back; "rest",
    a message that cannot; "attempt", one that cannot; "times", what a step of the clock concerns.
    "relaying" is noted where what is being relayed cannot be listed, "expired" where what has expired cannot; with a
    message, that it is on such a page.
    """

    def __init__(self) -> None:
        self.said = ""
        self._known: dict[tuple[str | int, ...], None] = {}
        self._told: set[tuple[int, str]] = set()
        self._is_fresh = False
        self._mendings_left = MENDINGS

    @property
    def is_met(self) -> bool:
        """Whether a page is damaged, as far as is known."""
        return bool(self.said)

    @property
    def trouble(self) -> str:
        """What an operator is told of it, or ""."""
        if not self.said:
            return ""
        count = sum(one[0] == "mail" for one in list(self._known))
        left_out = f"; the mail of {count:,} message{'' if count == 1 else 's'} is left out" if count else ""
        return (
            f"a page of the queue is damaged ({self.said}){left_out}: what it holds does not go, all else does; "
            "stop the engine and see to it with `smarthost check-spool --repair`"
        )

    @property
    def known(self) -> int:
        """How much is known to be unreadable."""
        return len(self._known)

    def met(self, error: BaseException) -> None:
        """Note that a page could not be read."""
        if not self.said:
            _log.error("a page of the queue cannot be read: %s", clean(str(error)))
        self.said = clean(str(error), 200)
        self._is_fresh = True

    def note(self, *what: str | int) -> None:
        """Note that this cannot be read, or removed. Of more than LEFT_OUT none is."""
        if what not in self._known and len(self._known) < LEFT_OUT:
            self._known[what] = None

    def knows(self, *what: str | int) -> bool:
        """Whether this is known to be unreadable."""
        return what in self._known

    def forget(self) -> None:
        """Have all be looked at again: what is beside a damaged page can be changed once there is room on its own."""
        self._known.clear()

    def to_tell(self, now: float) -> list[Event]:
        """The events that tell of mail that is left out since the last call."""
        mail = [(int(one[1]), str(one[2])) for one in self._known if one[0] == "mail"]
        untold = [one for one in mail if one not in self._told]
        self._told.update(untold)
        text = "it is on a damaged page of the queue and cannot be read: it is left out, and kept as it is"
        return [
            Event(at=now, kind="damaged", message=message, destination=destination, text=text)
            for message, destination in untold
        ]

    @property
    def is_to_be_mended(self) -> bool:
        """Whether damage was met since the last mending, and another one is allowed."""
        return self._is_fresh and self._mendings_left > 0

    def mend(self, connection: sqlite3.Connection, now: float) -> list[Event]:
        """Make anew what is damaged and holds no mail; give the events that tell of it, which have been kept.

        Raises sqlite3.Error, and Unsure where a commit failed; a transaction may be open then.
        """
        self._is_fresh = False
        self._mendings_left -= 1
        done = mend(connection)
        if not done:
            self._mendings_left = 0  # it is in the mail itself: looking again would find the same
            return []
        self.said = ""
        self._known.clear()
        for text in done:
            _log.error("a page of the queue was damaged: %s", text)
        with _transaction(connection):
            return [insert_event(connection, Event(at=now, kind="damaged", text=text)) for text in done]


def mend(connection: sqlite3.Connection) -> list[str]:
    """Make anew the damaged indexes, and the record of events where that is damaged; say what was done.

    Raises sqlite3.Error, and Unsure.
    """
    done = []
    for table in _INDEXED:
        if is_whole(connection, table):
            continue
        if _indexes_anew(connection, table):
            done.append(f"indexes of the table {table} have been made anew; nothing is lost")
        elif table in _RECORDS:
            _begin_anew(connection, table)
            done.append(_RECORDS[table])
    return done


def is_whole(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table and its indexes can be read and agree."""
    try:
        found = connection.execute(f"PRAGMA integrity_check({table})").fetchall()
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return False
    return bool(found == [("ok",)])


def _indexes_anew(connection: sqlite3.Connection, table: str) -> bool:
    """Make the indexes of a table anew; False, and nothing is done, where the table itself cannot be read."""
    try:
        with _transaction(connection):
            connection.execute(f"REINDEX {table}")
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
    else:
        if is_whole(connection, table):
            return True
    try:
        with _transaction(connection):
            for sql in _forget_indexes(connection, table):
                connection.execute(sql)
    except sqlite3.Error as error:
        connection.execute("PRAGMA writable_schema = RESET")  # what was forgotten is there again
        if not is_damage(error):
            raise
        return False
    return is_whole(connection, table)


def _forget_indexes(connection: sqlite3.Connection, table: str) -> list[str]:
    """Take the indexes of a table out of the schema; give what makes them.

    To drop one, all its pages must be read. This leaves them to nobody: some room is lost until the file is copied.
    """
    which = "type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    found = connection.execute(f"SELECT sql FROM sqlite_schema WHERE {which} ORDER BY rowid", (table,)).fetchall()
    _forget(connection, which, table)
    return [sql for (sql,) in found]


def _begin_anew(connection: sqlite3.Connection, table: str) -> None:
    """Go on with an empty table, numbered on from the old one. That of events is kept under another name."""
    anew = re.findall(rf"^CREATE (?:TABLE {table} \(|INDEX {table}_).*?;", schema(), re.DOTALL | re.MULTILINE)
    (number,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'event_damaged%'").fetchone()
    try:
        with _transaction(connection):
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if table == "event":
                _forget_indexes(connection, table)
                connection.execute(f"ALTER TABLE event RENAME TO event_damaged_{number + 1}")
            else:  # it refers to messages, and would be looked through for each that leaves
                _forget(connection, "tbl_name = ?", table)
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            for sql in anew:
                connection.execute(sql)
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, *(row or (0,))))
    except sqlite3.Error:
        connection.execute("PRAGMA writable_schema = RESET")
        raise


def _forget(connection: sqlite3.Connection, which: str, table: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute(f"DELETE FROM sqlite_schema WHERE {which}", (table,))
    finally:
        connection.execute("PRAGMA writable_schema = RESET")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    with sure():
        connection.execute("COMMIT")
