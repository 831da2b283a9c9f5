"""Connections to the store's file: how it is created, opened and brought to this version's schema."""

import os
import sqlite3
from importlib import resources
from pathlib import Path

from engine.queue.queue import QueueError
from engine.text import clean

VERSION = 4  # of the schema, kept in PRAGMA user_version
BUSY_SECONDS = 5.0  # another process (a backup, the sqlite3 shell) may hold the file for a moment

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

# In version 3 nobody remembered whence logins came in rightly.
_FROM_3 = """
CREATE TABLE known_login (
    login       TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    at          REAL    NOT NULL,
    PRIMARY KEY (login, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_login_at ON known_login (at);
"""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, creating it (0600) where there is none; its tables are those of this version.

    Raises QueueError when it cannot be opened, is no queue, or is of a newer version.
    """
    connection: sqlite3.Connection | None = None
    try:
        _create(path)
        connection = _connect(path, "rw")
        _prepare(connection, path)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise QueueError(f"cannot open the queue {path}: {clean(str(error))}") from error
    except QueueError:
        if connection is not None:
            connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading only."""
    connection = _connect(path, "ro")
    connection.execute("PRAGMA query_only = ON")
    return connection


def is_busy(error: sqlite3.Error) -> bool:
    """Whether an error says that somebody else holds the file: it was waited for, and nothing was done."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF in _BUSY if code is not None else str(error).endswith(" is locked")


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would create it as the umask says; its -wal and -shm take the mode of this one.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # the name of a new file is durable only with its folder
    finally:
        os.close(folder)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are begun and ended by us alone
        check_same_thread=False,  # one thread uses it, another may close it
        cached_statements=256,
    )
    connection.create_function("folded", 1, str.casefold, deterministic=True)
    connection.create_function("folded_like", 2, folded_like, deterministic=True)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise QueueError(
            f"the queue {path} is of version {version}, this smarthost knows {VERSION}: use the newer smarthost"
        )
    if version == 0:  # it counts only for a file in which nothing was written yet
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise QueueError(f"the queue {path} cannot use a write-ahead log: keep it on a local file system")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -16000")  # KiB
    # By itself SQLite would checkpoint inside COMMIT and keep a failed fsync to itself: the writer does it instead.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if version == 0:
        _write(connection, (resources.files("engine.queue") / "schema.sql").read_text("utf-8"), VERSION)
        return
    if version < 2:
        _write(connection, _FROM_1, 2)
    if version < 3:
        _write(connection, _FROM_2, 3)
    if version < 4:
        _write(connection, _FROM_3, 4)


def _write(connection: sqlite3.Connection, script: str, version: int) -> None:
    """Change the schema, with its version in the same transaction."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def folded_like(pattern: str, value: str) -> bool:
    """Match as LIKE does, with `*` for any text, in any case of any script: SQLite folds ASCII alone."""
    value = value.casefold()
    first, *parts = pattern.casefold().split("*")
    if not parts:
        return value == first
    if not value.startswith(first):
        return False
    # The first place of each part will do, so that this takes no longer than reading the value: strangers write it.
    position = len(first)
    for part in parts[:-1]:
        position = value.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return value.endswith(parts[-1]) and len(value) - len(parts[-1]) >= position
