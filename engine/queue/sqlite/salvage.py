"""What can be read of a damaged store is copied into a new one; what cannot is named, and held where it can be told.

A page that cannot be read is gone around: rows are read in the order of their keys, and behind the page from the next
key that leads elsewhere. Keys that only an index still knows are sought one by one; and a recipient whose row is gone
is known from the event that told of its arrival. Such a one is held: somebody should look before it goes.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from engine.base.plural import plural
from engine.base.text import clean
from engine.model.destination import unknown_site
from engine.model.event import ENGINE, Event
from engine.queue.sqlite.connection import is_damage
from engine.queue.sqlite.migrations import FORMERLY
from engine.queue.sqlite.reading import from_both_ends, walk
from engine.queue.sqlite.rows import insert_event

SOUGHT_ONE_BY_ONE = 100_000  # keys behind a page that cannot be read; then in ever longer steps
SAYS = "check-spool: "  # before the reason for which mail is held, and in the events
EVENTS_AT_MOST = 1000  # that tell of single recipients

# The tables that are copied, and their keys: those that begin with a number, and the others.
NUMBERED = {"message": "number", "body": "message", "attempt": "id", "hold_rule": "id", "operation": "id",
            "event": "seq", "entry": "message, number", "untold": "message, number"}  # fmt: skip
NAMED = {"destination": "name", "taken_key": "key", "exchange": "destination, preference",
         "suspension": "destination", "override": "destination", "mark": "host", "sts_policy": "domain",
         "known_login": "login, address", "suppressed": "address", "leaving": "move", "coming": "move"}  # fmt: skip
LEFT: frozenset[str] = frozenset()  # tables of the schema that are not, on purpose
_COUNTED = frozenset({"waiting", "held", "relaying", "edge"})  # of a destination: kept by triggers, as entries come
# What a column has that an early version 1 had not, where the schema of today has no default for it.
_INSTEAD = {("message", "ret"): "''", ("message", "envid"): "''", ("destination", "site"): "'@' || name"}
_ENDINGS = "'delivered', 'returned', 'discarded', 'dropped'"
_HELD = "UPDATE entry SET state = 'held', giving_up = 0, ordered = 'hold', ordered_by = ?, note = ?, rule = NULL "


class Key(NamedTuple):
    """One recipient of one message."""

    message: int
    number: int


class Salvaged:
    """What came of it: `lost` names what could not be read, `held` what somebody should look at, one line for each.

    Both are of (message, number of the recipient or 0, line).
    """

    def __init__(self) -> None:
        self.messages = 0
        self.recipients = 0
        self.lost: list[tuple[int, int, str]] = []
        self.held: list[tuple[int, int, str]] = []

    @property
    def lines(self) -> list[str]:
        """What an operator is told."""
        lines = [f"{plural(self.messages, 'message')} with {plural(self.recipients, 'recipient')} are in the new queue"]
        lines += [f"held: {line}" for _, _, line in self.held]
        lines += [f"lost: {line}" for _, _, line in self.lost]
        return lines


def salvage(old: sqlite3.Connection, new: sqlite3.Connection, now: float) -> Salvaged:
    """Copy what can be read of `old` into `new`, whose tables are empty. Raises sqlite3.Error for `new` alone.

    `new` has no foreign keys in force; the caller commits.
    """
    return _Salvage(old, new, now).done()


class _Salvage:
    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection, now: float) -> None:
        self._old = old
        self._new = new
        self._now = now
        self._found = Salvaged()
        self._has_holes: set[str] = set()
        self._is_index_whole = True
        self._missing: dict[Key, str] = {}  # recipients whose row is gone, and their destination

    def done(self) -> Salvaged:
        for table in ("destination", *(name for name in (*NAMED, *NUMBERED) if name not in ("destination", "entry"))):
            self._copy(table)
        self._copy("entry")
        self._seek_entries()
        self._restore_entries()
        self._restore_messages()
        self._hold_without_content()
        self._see_to_the_untold()
        self._sweep()
        self._number_on()
        self._tell()
        return self._found

    # -- copying ----------------------------------------------------------------------------------------------------

    def _copy(self, table: str) -> None:
        names, columns = self._columns(table)
        if not names:
            return
        holes = 0
        rows = self._numbered if table in NUMBERED else self._named
        for row in rows(table, columns):
            if row is None or not self._put(table, names, row):
                holes += 1
        if holes:
            self._has_holes.add(table)
        if holes and table not in ("message", "body", "entry"):  # of these each one is named below
            self._found.lost.append((0, 0, f"{plural(holes, 'part')} of the table {table}"))

    def _columns(self, table: str) -> tuple[list[str], list[str]]:
        """The columns to be written, and what is read for each, by its former name where an older file has that."""
        there = {name for (name,) in self._old.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))}
        names, columns = [], []
        for name, hidden in self._new.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall():
            if hidden or (table == "destination" and name in _COUNTED):
                continue
            if name in there:
                names.append(name)
                columns.append(f'"{name}"')
            elif (former := FORMERLY.get(name)) in there:
                names.append(name)
                columns.append(f'"{former}"')
            elif there and (table, name) in _INSTEAD:
                names.append(name)
                columns.append(_INSTEAD[table, name])
        return names, columns

    def _put(self, table: str, names: Sequence[str], row: Sequence[Any]) -> bool:
        quoted = ", ".join(f'"{name}"' for name in names)
        places = ", ".join("?" * len(names))
        if table == "entry":  # the triggers count it where its destination is
            self._know(str(row[names.index("destination")]))
        try:
            cursor = self._new.execute(f"INSERT OR IGNORE INTO {table} ({quoted}) VALUES ({places})", tuple(row))
        except sqlite3.IntegrityError:  # it is not of the kind that the column holds: read from a damaged page
            return False
        return cursor.rowcount == 1

    def _know(self, destination: str) -> None:
        self._new.execute(
            "INSERT OR IGNORE INTO destination (name, site, turn, touched) VALUES (?, ?, 0, ?)",
            (destination, unknown_site(destination), self._now),
        )

    # -- reading around what is damaged -----------------------------------------------------------------------------

    def _numbered(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...] | None]:
        """The rows of a table with a number for its key; None for each part that cannot be read."""
        keys = NUMBERED[table].split(", ")
        top = self._top(table, keys[0])
        last = yield from walk(self._old, table, columns, keys, "ASC")
        while last is not None:
            yield None
            seek = (
                f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED WHERE {keys[0]} >= ? ORDER BY {keys[0]} LIMIT 1"
            )
            first = self._beyond(seek, last[0], top)
            if first is None:
                return
            last = yield from walk(self._old, table, columns, keys, "ASC", first)

    def _top(self, table: str, key: str) -> int:
        """A number beyond which there is no row."""
        found = [0]
        for query in (
            f"SELECT max({key}) FROM {table} NOT INDEXED",
            f"SELECT seq FROM sqlite_sequence WHERE name = '{table if table in ('attempt', 'event') else 'message'}'",
            "SELECT max(message) FROM event",
        ):
            try:
                found += [row[0] for row in self._old.execute(query) if isinstance(row[0], int)]
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
        return max(found)

    def _beyond(self, query: str, after: int, top: int) -> int | None:
        """The next number that leads to a page that can be read."""
        sought, step = after + 1, 1
        for count in range(2 * SOUGHT_ONE_BY_ONE):
            if sought > top:
                return None
            if self._answers(query, sought):
                return sought
            step = step if count < SOUGHT_ONE_BY_ONE else step * 2
            sought += step
        return None

    def _answers(self, query: str, value: int) -> bool:
        try:
            self._old.execute(query, (value,)).fetchall()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return False
        return True

    def _named(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...] | None]:
        """The rows of a table with names for its key: from either end up to what cannot be read, which is None."""
        return from_both_ends(self._old, table, columns, NAMED[table].split(", "))

    # -- what is known otherwise ------------------------------------------------------------------------------------

    def _seek_entries(self) -> None:
        """Seek one by one what an index knows, and was not read."""
        names, columns = self._columns("entry")
        query = f"SELECT {', '.join(columns)} FROM entry NOT INDEXED WHERE message = ? AND number = ?"
        keys = ("destination", "message", "number")
        wanted = ("message", "number", "destination")
        known = from_both_ends(self._old, "entry", wanted, keys, "INDEXED BY entry_destination")
        for row in known:
            if row is None:
                self._is_index_whole = False
            if row is None or self._has("SELECT 1 FROM entry WHERE message = ? AND number = ?", row[0], row[1]):
                continue
            try:
                found = self._old.execute(query, row[:2]).fetchone()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                found = None
            if found is None or not self._put("entry", names, found):
                self._missing[Key(row[0], row[1])] = str(row[2])

    def _restore_entries(self) -> None:
        """Hold those whose row is gone, and whose arrival an event tells of."""
        arrived = dict.fromkeys(self._missing)
        if "entry" in self._has_holes and not self._is_index_whole:
            # Those, too, of messages of which no recipient was found at all, unless an event says how they left.
            left = f"SELECT 1 FROM event e WHERE e.message = a.message AND e.entry = a.entry AND e.kind IN ({_ENDINGS})"
            rows = self._new.execute(
                "SELECT a.message, a.entry FROM message m JOIN event a ON a.message = m.number AND a.kind = 'accepted' "
                f"WHERE NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number) AND NOT EXISTS ({left}) "
                "AND NOT EXISTS (SELECT 1 FROM untold u WHERE u.message = a.message AND u.number = a.entry)"
            )
            arrived |= {Key(message, number): None for message, number in rows.fetchall()}
        for key in sorted(arrived):
            row = self._new.execute(
                "SELECT recipient, destination FROM event WHERE message = ? AND entry = ? AND kind = 'accepted'", key
            ).fetchone()
            if row is None:
                where = f" at {clean(self._missing[key], 320)}" if self._missing.get(key) else ""
                line = f"message {key.message}: its recipient {key.number}{where}; no event names it"
                self._found.lost.append((*key, line))
                continue
            recipient, destination = row
            self._know(destination)
            self._new.execute(
                "INSERT INTO entry (message, number, recipient, destination, state, due, expires, ordered, ordered_by, "
                "note) VALUES (?, ?, ?, ?, 'held', ?, coalesce((SELECT expires FROM message WHERE number = ?), ?), "
                "'hold', ?, ?)",
                (
                    *key,
                    recipient,
                    destination,
                    self._now,
                    key.message,
                    self._now + _PATIENCE,
                    ENGINE,
                    f"{SAYS}{_OF_EVENT}",
                ),
            )
            self._found.held.append((*key, f"message {key.message}: to {clean(recipient, 320)}: {_OF_EVENT}"))

    def _restore_messages(self) -> None:
        """Make up the row of a message whose recipients and content are there."""
        gone = self._new.execute(
            "SELECT DISTINCT e.message FROM entry e LEFT JOIN message m ON m.number = e.message "
            "WHERE m.number IS NULL ORDER BY e.message"
        ).fetchall()
        self._restore_senders()
        for (number,) in gone:
            recipients = self._recipients(number)
            body = self._new.execute("SELECT content FROM body WHERE message = ?", (number,)).fetchone()
            if body is None:
                line = f"message {number}: to {recipients}: neither its sender nor its content can be read"
                self._found.lost.append((number, 0, line))
                self._new.execute("DELETE FROM entry WHERE message = ?", (number,))
                continue
            row = self._new.execute(
                "SELECT sender, at, text FROM event WHERE message = ? AND kind = 'accepted'", (number,)
            ).fetchone()
            sender, arrived, origin = row or ("", self._now, "")
            who = clean(sender, 320) if row and sender else "nobody" if row else "unknown: a bounce would reach nobody"
            self._new.execute(
                "INSERT INTO message (number, sender, size, arrived, expires, origin, subject, message_id, eight_bit, "
                "smtputf8, ret, envid) VALUES (?, ?, ?, ?, (SELECT max(expires) FROM entry WHERE message = ?), ?, '', "
                "'', ?, ?, '', '')",
                (number, sender, len(body[0]), arrived, number, origin, not body[0].isascii(), not sender.isascii()),
            )
            self._hold(number, f"{_OF_MESSAGE}; its sender is {who}")

    def _hold_without_content(self) -> None:
        """Hold the mail whose content is gone, or is not what came."""
        numbers = self._new.execute("SELECT DISTINCT message FROM entry ORDER BY message").fetchall()
        for (number,) in numbers:
            row = self._new.execute("SELECT sha256, content FROM body WHERE message = ?", (number,)).fetchone()
            if row is None:
                self._hold(number, _NO_CONTENT)
            elif hashlib.sha256(row[1]).digest() != row[0]:
                self._hold(number, _OTHER_CONTENT)

    def _restore_senders(self) -> None:
        """Make up the row of a message of which nothing is left but what its sender is to be told."""
        gone = self._new.execute(
            "SELECT DISTINCT message FROM untold WHERE message NOT IN (SELECT number FROM message) "
            "AND message NOT IN (SELECT message FROM entry) ORDER BY message"
        ).fetchall()
        for (number,) in gone:
            row = self._new.execute(
                "SELECT sender, at, text FROM event WHERE message = ? AND kind = 'accepted'", (number,)
            ).fetchone()
            if row is None:
                self._found.lost.append((number, 0, f"message {number}: {_OF_UNTOLD}; no event names its sender"))
                self._new.execute("DELETE FROM untold WHERE message = ?", (number,))
                continue
            self._new.execute(
                "INSERT INTO message (number, sender, size, arrived, expires, origin, subject, message_id, eight_bit, "
                "smtputf8, ret, envid) "
                "VALUES (?, ?, coalesce((SELECT length(content) FROM body WHERE message = ?), 0), "
                "?, ?, ?, '', '', 0, ?, '', '')",
                (number, row[0], number, row[1], self._now, row[2], not row[0].isascii()),
            )

    def _see_to_the_untold(self) -> None:
        """What a sender is to be told has a time, and nothing else has; what of it has no content is named."""
        untold = "EXISTS (SELECT 1 FROM untold WHERE untold.message = message.number)"
        query = f"SELECT number FROM message WHERE tell_at IS NOT NULL AND NOT {untold} ORDER BY number"
        for (number,) in self._new.execute(query).fetchall():
            self._found.lost.append((number, 0, f"message {number}: {_OF_UNTOLD}"))
        self._new.execute(f"UPDATE message SET tell_at = NULL WHERE NOT {untold}")
        self._new.execute(f"UPDATE message SET tell_at = ? WHERE tell_at IS NULL AND {untold}", (self._now,))
        settled = (
            "SELECT m.number, b.sha256, b.content FROM message m LEFT JOIN body b ON b.message = m.number "
            "WHERE NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number) AND m.tell_at IS NOT NULL"
        )
        for number, digest, content in self._new.execute(settled).fetchall():
            if content is not None and hashlib.sha256(content).digest() == digest:
                continue
            if content is not None or "body" in self._has_holes:
                line = f"message {number}: its content; it has been settled, and its sender is told without it"
                self._found.lost.append((number, 0, line))
            self._new.execute("DELETE FROM body WHERE message = ?", (number,))

    def _sweep(self) -> None:
        """Forget what belongs to no mail that is left, nor to what a sender is still to be told."""
        orphans = (
            "NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = {0}) "
            "AND NOT EXISTS (SELECT 1 FROM untold WHERE untold.message = {0})"
        )
        self._new.execute(f"DELETE FROM message WHERE {orphans.format('message.number')}")
        self._new.execute(f"DELETE FROM body WHERE {orphans.format('body.message')}")
        self._new.execute(f"DELETE FROM attempt WHERE {orphans.format('attempt.message')}")
        self._new.execute("DELETE FROM exchange WHERE destination NOT IN (SELECT name FROM destination)")
        (self._found.messages,) = self._new.execute("SELECT count(*) FROM message").fetchone()
        (self._found.recipients,) = self._new.execute("SELECT count(*) FROM entry").fetchone()

    def _number_on(self) -> None:
        """No number is given twice, not even one whose row is gone."""
        for table, key in (("message", "number"), ("attempt", "id"), ("event", "seq"), ("operation", "id"),
                           ("hold_rule", "id")):  # fmt: skip
            found = [0]
            try:
                found += [
                    seq for (seq,) in self._old.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
                ]
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            found += self._new.execute(f"SELECT coalesce(max({key}), 0) FROM {table}").fetchone()
            if table == "message":
                found += self._new.execute("SELECT coalesce(max(message), 0) FROM event").fetchone()
            self._new.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            self._new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, max(found)))

    def _tell(self) -> None:
        """The events say what the command says."""
        for message, number, line in [*self._found.lost, *self._found.held][:EVENTS_AT_MOST]:
            insert_event(
                self._new,
                Event(at=self._now, kind="damaged", message=message, entry=number, text=f"{SAYS}{line}"),
            )

    def _hold(self, message: int, why: str) -> None:
        self._new.execute(f"{_HELD} WHERE message = ?", (ENGINE, f"{SAYS}{why}", message))
        self._found.held.append((message, 0, f"message {message}: to {self._recipients(message)}: {why}"))

    def _recipients(self, message: int) -> str:
        rows = self._new.execute("SELECT recipient FROM entry WHERE message = ? ORDER BY number", (message,)).fetchall()
        return ", ".join(clean(recipient, 320) for (recipient,) in rows)

    def _has(self, query: str, *values: object) -> bool:
        return self._new.execute(query, values).fetchone() is not None


_PATIENCE = 5 * 86400.0  # seconds
_OF_EVENT = "its record was damaged, and is restored from the event that told of its arrival"
_OF_MESSAGE = "its record was damaged, and is restored from its content and the event that told of its arrival"
_OF_UNTOLD = "what its sender was to be told of recipients that are settled"
_NO_CONTENT = "its content cannot be read; drop it, or have its sender send it again"
_OTHER_CONTENT = "its content is damaged; drop it, or have its sender send it again"
