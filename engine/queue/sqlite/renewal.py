"""What of a damaged store holds no mail is made anew: indexes, records, and small tables from what can be read.

An index is made from its table. The records of events and attempts are begun anew: without them mail goes on. What
operators have laid upon mail, and what is known of hosts and logins, is in small tables, of which some is asked for
every message: of these all is kept but what is on the damaged page.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from engine.model.event import Event
from engine.queue.sqlite.connection import is_damage, sure
from engine.queue.sqlite.migrations import schema
from engine.queue.sqlite.reading import from_both_ends
from engine.queue.sqlite.rows import insert_event

_INDEXED = ("destination", "entry", "message", "attempt", "exchange", "operation", "event")
# Tables without which mail goes on, and what is said when they are begun anew.
_RECORDS = {
    "event": "the events kept until now cannot be read, and are set aside; no mail is concerned",
    "attempt": "the attempts recorded until now cannot be read, and are forgotten; no mail is lost, but what is being "
    "sent at this moment may be sent again",
}
# Small tables, what their rows are called, and their keys.
_OF_OPERATORS = {"hold_rule": "hold rules", "suspension": "suspensions", "override": "overrides"}
_SMALL = {
    **_OF_OPERATORS,
    "mark": "marks of bad hosts",
    "sts_policy": "MTA-STS policies",
    "known_login": "known logins",
    "suppressed": "suppressed addresses",
}
_KEYS = {"hold_rule": "id", "suspension": "destination", "override": "destination", "mark": "host",
         "sts_policy": "domain", "known_login": "login, address", "suppressed": "address"}  # fmt: skip
_LOOK_AFTER = "what operators had laid upon mail is to be looked after"
_AND_THEN: Mapping[str, str] = {
    "hold_rule": f"; what these held stays held, and nothing more is held for them: {_LOOK_AFTER}",
    "suspension": f"; mail goes where it was not to: {_LOOK_AFTER}",
    "override": f"; mail goes by the exchanges again: {_LOOK_AFTER}",
}


class Mended(NamedTuple):
    """What was made anew: the events that tell of it, and what operators had laid upon mail and is lost in part.

    That is named as in "hold rules".
    """

    events: list[Event]
    lost: list[str]


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


def mend_small_tables(connection: sqlite3.Connection, now: float) -> Mended:
    """Make anew the damaged small tables from the rows that can be read, each in the transaction that tells of it.

    Raises sqlite3.Error, and Unsure.
    """
    done = Mended([], [])
    for table, named in _SMALL.items():
        if is_whole(connection, table):
            continue
        if _indexes_anew(connection, table):
            text = f"indexes of the table {table} have been made anew; nothing is lost"
            with transaction(connection):
                done.events.append(insert_event(connection, Event(at=now, kind="damaged", text=text)))
            continue
        done.events.append(_from_what_can_be_read(connection, table, named, now))
        if table in _OF_OPERATORS:
            done.lost.append(named)
    return done


def _from_what_can_be_read(connection: sqlite3.Connection, table: str, named: str, now: float) -> Event:
    """Make a small table anew; give the event that tells of it.

    They are read before the transaction: SQLite commits none that has met damage.
    """
    names = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    quoted = [f'"{name}"' for name in names]
    text_factory = connection.text_factory
    connection.text_factory = lambda content: content.decode("utf-8", "replace")  # of such a page anything may come
    try:
        rows = [row for row in from_both_ends(connection, table, quoted, _KEYS[table].split(", ")) if row is not None]
    finally:
        connection.text_factory = text_factory
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(quoted)}) VALUES ({', '.join('?' * len(names))})"
    count = 0
    try:
        with transaction(connection):
            _forget(connection, "tbl_name = ?", table)
            for sql in _statements(table):
                connection.execute(sql)
            for row in rows:
                with suppress(sqlite3.IntegrityError):  # not of the kind that a column holds
                    count += connection.execute(insert, row).rowcount
            left = _AND_THEN.get(table, "; no mail is concerned")
            text = f"{count:,} {named} could be read and are kept, others were lost with a damaged page{left}"
            return insert_event(connection, Event(at=now, kind="damaged", text=text))
    except sqlite3.Error:
        connection.execute("PRAGMA writable_schema = RESET")  # what was forgotten is there again
        raise


def _statements(table: str) -> list[str]:
    """What makes a table and its indexes."""
    return re.findall(rf"^CREATE (?:TABLE {table} \(|INDEX {table}_).*?;$", schema(), re.DOTALL | re.MULTILINE)


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
        with transaction(connection):
            connection.execute(f"REINDEX {table}")
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
    else:
        if is_whole(connection, table):
            return True
    try:
        with transaction(connection):
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
    (number,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'event_damaged%'").fetchone()
    try:
        with transaction(connection):
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if table == "event":
                _forget_indexes(connection, table)
                connection.execute(f"ALTER TABLE event RENAME TO event_damaged_{number + 1}")
            else:  # it refers to messages, and would be looked through for each that leaves
                _forget(connection, "tbl_name = ?", table)
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            for sql in _statements(table):
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
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Around what is committed as a whole. Raises Unsure where that fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    with sure():
        connection.execute("COMMIT")
