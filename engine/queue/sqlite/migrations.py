"""The store's schema and its versions: made anew, or brought to this one once a copy of the file has been kept."""

import logging
import os
import sqlite3
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from engine.base.files import sync
from engine.base.text import clean
from engine.queue.errors import QueueError

VERSION = 8  # of the schema, kept in PRAGMA user_version

# In version 1 each entry had the time of its bounce or drop; now the order as a whole has it.
_FROM_1 = """
ALTER TABLE operation ADD COLUMN due REAL;
UPDATE operation SET due = (SELECT max(e.order_at) FROM entry e WHERE e.operation = operation.id) WHERE finished;
CREATE INDEX operation_due ON operation (due) WHERE due IS NOT NULL;
DROP INDEX entry_order;
ALTER TABLE entry DROP COLUMN order_at;
"""

# In version 2 nobody counted on how many an order to bounce or drop had been carried out. What had been carried out
# before is told of no more; an order that was not yet whole is counted from here on.
_FROM_2 = """
ALTER TABLE operation ADD COLUMN gone_messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operation ADD COLUMN gone_recipients INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operation ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN counted INTEGER;
UPDATE operation SET due = NULL
WHERE due IS NOT NULL AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.operation = operation.id);
UPDATE operation SET
    recipients = (SELECT count(*) FROM entry e WHERE e.operation = operation.id),
    messages = (SELECT count(DISTINCT e.message) FROM entry e WHERE e.operation = operation.id)
WHERE due IS NOT NULL;
"""

# In version 3 nobody kept when a destination took mail last, nor whether a block was for a failure: those whose last
# reply says so have proved themselves. A notification was queued with the settlement that called for it; now what is to
# be told is gathered. Whence a login came in rightly was forgotten with a restart.
_FROM_3 = """
ALTER TABLE destination ADD COLUMN took_at REAL NOT NULL DEFAULT 0;
UPDATE destination SET took_at = last_at
WHERE last_at > 0 AND blocked_until = 0 AND json_extract(last, '$.kind') = 'delivered';
CREATE INDEX destination_proved ON destination (turn, name, ready, site) WHERE ready IS NOT NULL AND took_at > 0;
CREATE INDEX destination_doubtful ON destination (turn, name, ready, site, blocked_until)
    WHERE ready IS NOT NULL AND took_at = 0;
CREATE INDEX destination_took ON destination (site, took_at) WHERE took_at > 0;
DROP INDEX entry_relaying;
CREATE INDEX entry_relaying ON entry (destination, state) WHERE state = 'relaying';
CREATE INDEX entry_fresh ON entry (destination, due, state, attempts) WHERE state = 'waiting' AND attempts = 0;
ALTER TABLE destination ADD COLUMN unreached_at REAL NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN tell_at REAL;
ALTER TABLE message ADD COLUMN tellings INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0;
CREATE INDEX message_tell_at ON message (tell_at) WHERE tell_at IS NOT NULL;
CREATE TABLE untold (
    message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    recipient   TEXT    NOT NULL,
    orcpt       TEXT    NOT NULL,
    action      TEXT    NOT NULL CHECK (action IN ('failed', 'relayed')),
    outcome     TEXT    NOT NULL,
    at          REAL    NOT NULL,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE known_login (
    login       TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    at          REAL    NOT NULL,
    PRIMARY KEY (login, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_login_at ON known_login (at);
"""

# In version 4 nobody kept what a block was about: it had to be read out of its words. And nobody could postpone mail.
_FROM_4 = """
ALTER TABLE destination ADD COLUMN blocked_cause TEXT NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN postponed_at REAL;
ALTER TABLE entry ADD COLUMN postponed_by TEXT NOT NULL DEFAULT '';
CREATE INDEX entry_postponed ON entry (postponed_by) WHERE postponed_by <> '';
"""

# In version 5 what an operator noted was called a reason, as if it were why mail waits.
FORMERLY = {"note": "reason", "prior_note": "prior_reason"}  # columns, whatever the table
_NOTED = (
    *((table, "note") for table in ("entry", "suspension", "hold_rule", "override", "mark", "operation")),
    ("entry", "prior_note"),
)
_FROM_5 = "\n".join(f"ALTER TABLE {table} RENAME COLUMN {FORMERLY[name]} TO {name};" for table, name in _NOTED)

# In version 6 a queue could not be moved to another store.
_FROM_6 = """
CREATE TABLE leaving (
    move        TEXT    NOT NULL PRIMARY KEY,
    source      TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    agreed      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE coming (
    move        TEXT    NOT NULL PRIMARY KEY,
    shifts      TEXT    NOT NULL,
    batch       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
"""

# In version 7 no address was remembered for having failed.
_FROM_7 = """
CREATE TABLE suppressed (
    address     TEXT    NOT NULL PRIMARY KEY,
    since       REAL    NOT NULL,
    until       REAL,
    "by"        TEXT    NOT NULL,
    reply       TEXT    NOT NULL,
    note        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX suppressed_since ON suppressed (since) WHERE "by" = 'engine';
CREATE INDEX suppressed_until ON suppressed (until) WHERE until IS NOT NULL;
"""

# What brings each version to the next, and the columns that come with it.
_STEPS: Mapping[int, tuple[str, frozenset[tuple[str, str]]]] = {
    1: (_FROM_1, frozenset({("operation", "due")})),
    2: (
        _FROM_2,
        frozenset(
            {
                ("operation", "gone_messages"),
                ("operation", "gone_recipients"),
                ("operation", "released"),
                ("entry", "counted"),
            }
        ),
    ),
    3: (
        _FROM_3,
        frozenset(
            {
                ("destination", "took_at"),
                ("destination", "unreached_at"),
                ("message", "tell_at"),
                ("message", "tellings"),
                ("message", "given_back"),
                *(("untold", name) for name in ("message", "number", "recipient", "orcpt", "action", "outcome", "at")),
                *(("known_login", name) for name in ("login", "address", "at")),
            }
        ),
    ),
    4: (
        _FROM_4,
        frozenset({("destination", "blocked_cause"), ("entry", "postponed_at"), ("entry", "postponed_by")}),
    ),
    5: (_FROM_5, frozenset(_NOTED)),
    6: (
        _FROM_6,
        frozenset(
            {
                *(("leaving", name) for name in ("move", "source", "target", "agreed")),
                *(("coming", name) for name in ("move", "shifts", "batch")),
            }
        ),
    ),
    7: (_FROM_7, frozenset(("suppressed", name) for name in ("address", "since", "until", "by", "reply", "note"))),
}

log = logging.getLogger(__name__)


@cache
def schema() -> str:
    """The statements that make the tables of this version."""
    return (resources.files("engine.queue.sqlite") / "schema.sql").read_text("utf-8")


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of this version in an empty file. Raises sqlite3.Error."""
    _write(connection, schema(), VERSION)


def bring_to_this_version(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Change the tables of an older version to those of this one; before that, keep a copy of the file beside it.

    Raises QueueError where a table is not what that version had (version 1 was four different ones before it was
    released), or where there is no room for the copy; and sqlite3.Error. Nothing is changed then.
    """
    if missing := lacks(connection, version):
        raise QueueError(
            f"the queue {path} is of version {version}, but has no {', no '.join(missing[:3])}: it was written by a "
            "smarthost that was never released; `smarthost check-spool --repair` brings its mail into a queue of today"
        )
    if version == VERSION:
        return
    kept = _keep_a_copy(connection, path, version)
    for step in range(version, VERSION):
        _write(connection, _STEPS[step][0], step + 1)
    log.info("the queue %s is of version %d now; as it was in version %d it is kept in %s",
              path, VERSION, version, kept)  # fmt: skip


def lacks(connection: sqlite3.Connection, version: int) -> list[str]:
    """The columns that a file of this version should have and has not, "table.column"; a whole table by its name."""
    later = frozenset[tuple[str, str]]().union(*(added for step, (_, added) in _STEPS.items() if step >= version))
    found = columns(connection)
    missing: dict[str, None] = {}
    for table, column in sorted(_of_this_version() - later - found):
        missing["table " + table if not any(name == table for name, _ in found) else f"{table}.{column}"] = None
    return list(missing)


def columns(connection: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """Every table's columns, but those that are computed."""
    return frozenset(
        connection.execute(
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c "
            "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND c.hidden = 0"
        ).fetchall()
    )


@cache
def _of_this_version() -> frozenset[tuple[str, str]]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    try:
        made.executescript(schema())
        return columns(made)
    finally:
        made.close()


def _keep_a_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the file as it is; the copy has its name only once it is whole. Raises QueueError."""
    kept = path.with_name(f"{path.name}.version-{version}")
    growing = kept.with_name(f"{kept.name}.part")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    try:
        growing.unlink(missing_ok=True)
        disk = os.statvfs(path.parent)
        if (free := disk.f_bavail * disk.f_frsize) < (needed := pages * page_size + _BESIDE):
            raise QueueError(
                f"the queue {path} is of version {version}, and there is no room to keep a copy of it before it is "
                f"changed: that takes {_mib(needed)}, and {_mib(free)} are free"
            )
        os.close(os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection.execute("VACUUM INTO ?", (str(growing),))
        sync(growing)
        growing.replace(kept)
        sync(kept.parent)
    except (OSError, sqlite3.Error) as error:
        growing.unlink(missing_ok=True)
        raise QueueError(
            f"no copy of the queue {path} could be kept before it is changed: {clean(str(error))}"
        ) from error
    return kept


_BESIDE = 16 * 2**20  # bytes that changing the file itself may take


def _mib(octets: int) -> str:
    return f"{octets / 2**20:,.0f} MiB"


def _write(connection: sqlite3.Connection, script: str, version: int) -> None:
    """Change the schema, with its version in the same transaction."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
