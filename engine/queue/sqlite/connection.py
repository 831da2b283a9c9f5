"""Connections to the store's file: how it is created and opened, and what its errors say."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engine.base.files import sync
from engine.base.registrable import registrable
from engine.base.text import clean
from engine.queue.errors import QueueError
from engine.queue.sqlite.migrations import VERSION, bring_to_this_version, create

__all__ = ["BUSY_SECONDS", "VERSION", "Unsure", "connect_reader", "connect_writer", "folded_like"]

LOG_KEPT = 64 * 2**20  # bytes of the log kept for what comes; what it has more goes back to the file system once copied
BUSY_SECONDS = 5.0  # another process (a backup, the sqlite3 shell) may hold the file for a moment

SEE_TO_IT = "`smarthost check-spool --repair` saves what can be read of it"

Key = TypeVar("Key")
T = TypeVar("T")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
# A page that is not what it should be, or that the disk will not give.
_DAMAGE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}


class Unsure(Exception):
    """A commit, or the copying of the log, failed: what is on disk is unknown. Its cause is SQLite's error."""


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
        hint = f"; {SEE_TO_IT}" if is_damage(error) else ""
        raise QueueError(f"cannot open the queue {path}: {clean(str(error))}{hint}") from error
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


def is_damage(error: BaseException) -> bool:
    """Whether an error says that a page cannot be read: that concerns what is on the page alone."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "malformed" in str(error)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or code in _DAMAGE


def of_each(keys: Iterable[Key], question: Callable[[Key], T], *, singly: bool = True) -> Iterator[T]:
    """What a question gives for each of these keys; `singly`: but for those where it meets a damaged page."""
    for key in keys:
        try:
            yield question(key)
        except sqlite3.Error as error:
            if not singly or not is_damage(error):
                raise


@contextmanager
def sure() -> Iterator[None]:
    """Around a commit, or a copying of the log. Raises Unsure for whatever goes wrong in it."""
    try:
        yield
    except Exception as error:
        raise Unsure(str(error)) from error


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would create it as the umask says; its -wal and -shm take the mode of this one.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    sync(path.parent)  # the name of a new file is durable only with its folder


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
    connection.create_function("registrable", 1, registrable, deterministic=True)
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
    connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")
    if version == 0:
        create(connection)
    else:
        bring_to_this_version(connection, path, version)
    # What is written needs no file but the queue's own: there may be no descriptor left, or no room in /var/tmp. It is
    # little; only a migration may be large, and is done by now.
    connection.execute("PRAGMA temp_store = MEMORY")


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
