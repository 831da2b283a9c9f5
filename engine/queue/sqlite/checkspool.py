"""Checking a spool that no engine owns, and repairing it: what `smarthost check-spool` does.

Whatever the repair does, the queue keeps its name until a new one is whole and on disk, and then gives it up in one
step; the old one is kept beside it. So it may be killed at any line, and run again.
"""

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from engine.base.files import sync
from engine.base.text import clean
from engine.queue.spool import Spool, SpoolError, SpoolOwned
from engine.queue.sqlite import who_reads
from engine.queue.sqlite.connection import is_busy, is_damage
from engine.queue.sqlite.migrations import VERSION, create, lacks
from engine.queue.sqlite.salvage import SAYS, salvage
from engine.queue.sqlite.store import FILE

__all__ = ["CannotCheck", "Checked", "SpoolError", "SpoolOwned", "check", "repair"]

NAMED = 100  # problems that are named
BESIDE = 16 * 2**20  # bytes that are to be free beside what the new queue takes

# What is mended by making the indexes anew, by the words of SQLite's integrity_check.
_OF_INDEXES = ("missing from index", "wrong # of entries in index", "non-unique entry in index", "values out of order")


class CannotCheck(Exception):
    """The spool cannot be looked at, or repaired; the text says why and what to do. It is as it was."""


class Checked(Struct, frozen=True, kw_only=True):
    """What was found and done. `is_sound`: the queue is in order now. `lines` tell of it, one thing each."""

    is_sound: bool
    lines: tuple[str, ...]


def check(folder: Path) -> Checked:
    """Say whether the queue in a spool is in order. Nothing is changed. Raises CannotCheck and SpoolError."""
    with _owned(folder) as file:
        found = _problems(file)
        if not found:
            return Checked(is_sound=True, lines=(f"{file}: in order",))
        hint = f"`smarthost check-spool {folder} --repair` saves what can be read"
        return Checked(is_sound=False, lines=(*(f"{file}: {fault}" for fault in found), hint))


def repair(folder: Path, now: Callable[[], float] = time.time) -> Checked:
    """Check, and put right what is not in order. Raises CannotCheck and SpoolError; the queue is as it was then."""
    with _owned(folder) as file:
        _alone(file)
        found = _problems(file)
        if not found:
            return Checked(is_sound=True, lines=(f"{file}: in order; there is nothing to repair",))
        lines = [f"{file}: {fault}" for fault in found]
        if all(any(words in fault for words in _OF_INDEXES) for fault in found) and _reindexed(file):
            return Checked(is_sound=True, lines=(*lines, "repaired: its indexes have been made anew; nothing is lost"))
        kept = file.with_name(f"{FILE}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now()))}")
        saved = _made_anew(file, now)
        _exchange(file, kept)
        return Checked(is_sound=True, lines=(*lines, "repaired: it has been copied", *saved, f"kept as it was: {kept}"))


@contextmanager
def _owned(folder: Path) -> Iterator[Path]:
    """The file of a queue, while no engine may open it."""
    file = folder / FILE
    if not file.is_file():
        raise CannotCheck(f"{folder}: there is no queue in it ({FILE})")
    with Spool(folder):
        try:
            _give_to_the_owner(folder / "lock", file)
            yield file
        except (sqlite3.Error, OSError) as error:
            raise CannotCheck(f"{file}: {clean(str(error))}") from error


def _opened(file: Path, mode: str) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    connection.text_factory = lambda content: content.decode("utf-8", "replace")  # of a damaged page anything may come
    return closing(connection)


def _alone(file: Path) -> None:
    """Have all that the log holds in the file, and the log gone: a copy that takes the file's place must find none.

    That is done only where nobody else has the file open.
    """
    with _opened(file, "rw") as connection:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.Error as error:
            if not is_busy(error):
                raise
            mode = "wal"
        if mode != "delete":
            others = who_reads.named(file.with_name(f"{FILE}-shm"))
            raise CannotCheck(f"{file}: another program{others} has it open; end that first")


def _problems(file: Path) -> list[str]:
    """What is not in order, at most NAMED of it."""
    with _opened(file, "ro") as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise CannotCheck(
                f"{file} is of version {version}, this smarthost knows {VERSION}: use the newer smarthost"
            )
        found = [f"it is of version {version}, and has no {lack}" for lack in lacks(connection, version)]
        if found:
            return found
        for question in (_pages, _bodies, _references, _counts):
            try:
                found += question(connection)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                found.append(f"a page cannot be read: {clean(str(error))}")
        return list(dict.fromkeys(found))[:NAMED]


def _pages(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(f"PRAGMA integrity_check({NAMED})").fetchall()
    return [] if rows == [("ok",)] else [clean(line) for (said,) in rows for line in str(said).split("\n")]


def _bodies(connection: sqlite3.Connection) -> list[str]:
    """Contents that are not what came; those for which a repair has held the mail are known already."""
    found = []
    rows = connection.execute(
        "SELECT m.number, b.sha256, b.content FROM message m LEFT JOIN body b ON b.message = m.number WHERE EXISTS "
        "(SELECT 1 FROM entry e WHERE e.message = m.number AND NOT (e.state = 'held' AND e.note LIKE ?)) "
        # What only waits to be told is told without a content that is not there.
        "OR b.message IS NOT NULL AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.message = m.number)",
        (f"{SAYS}%",),
    )
    for number, digest, content in rows:
        if content is None:
            found.append(f"message {number} has no content")
        elif hashlib.sha256(content).digest() != digest:
            found.append(f"the content of message {number} is not what came")
    return found


def _references(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute('SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2').fetchall()
    found = [f"{count:,} rows of {table} belong to no {parent}" for table, parent, count in rows]
    settled = "AND NOT EXISTS (SELECT 1 FROM untold WHERE untold.message = message.number)"
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'untold'").fetchone():
        settled = ""  # before version 4 a sender was told at once
    (left,) = connection.execute(
        "SELECT count(*) FROM message WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = message.number) "
        f"{settled}"
    ).fetchone()
    return [*found, *([f"{left:,} messages without recipients are left over"] if left else [])]


def _counts(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT d.name FROM destination d LEFT JOIN (SELECT destination, sum(state = 'waiting') AS waiting, "
        "sum(state = 'held') AS held, sum(state = 'relaying') AS relaying, "
        "min(iif(state = 'waiting', due, NULL)) AS edge FROM entry GROUP BY destination) e ON e.destination = d.name "
        "WHERE (d.waiting, d.held, d.relaying) <> "
        "(coalesce(e.waiting, 0), coalesce(e.held, 0), coalesce(e.relaying, 0)) "
        "OR d.edge IS NOT e.edge"
    ).fetchall()
    return [f"the counts of {clean(name, 320)} are wrong" for (name,) in rows]


def _reindexed(file: Path) -> bool:
    with _opened(file, "rw") as connection:
        try:
            connection.execute("REINDEX")
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return False
    return not _problems(file)


def _made_anew(file: Path, now: Callable[[], float]) -> list[str]:
    """Copy what can be read into a new queue beside the old one, and have it on disk; say what came of it."""
    new = file.with_name(f"{FILE}.new")
    size = file.stat().st_size
    _forget(new)
    if (free := shutil.disk_usage(file.parent).free) < size + BESIDE:
        raise CannotCheck(
            f"{file}: there is no room to copy it: that takes {_mib(size + BESIDE)}, and {_mib(free)} are free in "
            f"{file.parent}"
        )
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with _opened(file, "ro") as old, _opened(new, "rw") as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = OFF")  # it counts only once it is whole
            connection.execute("PRAGMA synchronous = OFF")
            create(connection)
            connection.execute("BEGIN")
            saved = salvage(old, connection, now())
            connection.execute("COMMIT")
        if wrong := _problems(new):
            raise CannotCheck(f"{file}: the copy of it is not in order ({wrong[0]}); nothing has been changed")
        _give_to_the_owner(new, file)
        sync(new)
    except BaseException:
        with suppress(OSError):
            _forget(new)
        raise
    return saved.lines


def _exchange(file: Path, kept: Path) -> None:
    """Put the new queue in the place of the old one, which is kept under another name."""
    try:
        os.link(file, kept)
    except OSError:  # a file system without links
        growing = kept.with_name(f"{kept.name}.part")
        shutil.copyfile(file, growing)
        growing.chmod(0o600)
        sync(growing)
        growing.replace(kept)
    sync(file.parent)
    file.with_name(f"{FILE}.new").replace(file)
    sync(file.parent)


def _give_to_the_owner(path: Path, file: Path) -> None:
    """What root makes here belongs to whom the queue belongs: the engine runs as that user, and must open it."""
    owner, made = file.stat(), path.stat()
    if (made.st_uid, made.st_gid) != (owner.st_uid, owner.st_gid):
        os.chown(path, owner.st_uid, owner.st_gid)


def _forget(new: Path) -> None:
    for name in (new.name, f"{new.name}-journal", f"{new.name}-wal", f"{new.name}-shm"):
        new.with_name(name).unlink(missing_ok=True)


def _mib(octets: int) -> str:
    return f"{octets / 2**20:,.0f} MiB"
