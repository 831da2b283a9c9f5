"""Moving a queue: what an operator names at either end is opened here, and what came of the move is put into words."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

from engine.base.clock import SystemClock
from engine.base.plural import agree, plural
from engine.queue.moving import CannotMove, End, Moved, abandon, command_of, move
from engine.queue.sqlite.moving import SqliteEnd
from engine.settings.names import database

__all__ = ["CannotMove", "command_of", "move_queue"]

TOLD_EVERY = 2.0  # seconds between two lines on how far it is
NAMED = 100  # messages that cannot be moved are named; the others are counted

How = Literal["move", "abandon", "lost"]

_SCHEMES = ("postgresql:", "postgres:")


def move_queue(
    source: str, target: str, tell: Callable[[str], None], *, password_file: Path | None = None, how: How = "move"
) -> tuple[bool, tuple[str, ...]]:
    """Move a queue, or go on with that; or "abandon" it: leave the rest where it is. Each is a spool or a database.

    "lost" abandons a move to a queue that is gone for good, and does not ask it.

    `tell` has a line every TOLD_EVERY seconds. Gives whether all was moved, and what to say of it. Raises CannotMove,
    and KeyboardInterrupt, after which it can be run again.
    """
    return asyncio.run(_move(source, target, _Progress(tell), password_file, how))


async def _move(
    source: str, target: str, told: "_Progress", password_file: Path | None, how: How
) -> tuple[bool, tuple[str, ...]]:
    password = _password(password_file)
    ends = [_address(source), _address(target)]
    if ends[0] == ends[1]:
        raise CannotMove(f"{ends[0]}: this is the queue it is to be moved to")
    async with _end(ends[0], password, is_source=True) as left:
        if how == "lost":
            await abandon(left, None)
            return True, (f"ended: what was not moved, and perhaps some of what was, is in {left.address}",)
        async with _end(ends[1], password) as taken:
            if how == "abandon":
                await abandon(left, taken)
                return True, (f"ended: what was moved is in {taken.address}, the rest is in {left.address}",)
            return _said(await move(left, taken, told), left.address, taken.address)


def _said(moved: Moved, source: str, target: str) -> tuple[bool, tuple[str, ...]]:
    done = f"{plural(moved.messages, 'message')} moved from {source} to {target}"
    if not moved.left:
        return True, (f"{done}; nothing is left there",)
    count, command = len(moved.left), command_of(source, target)
    lines = [f"message {number}: {why}" for number, why in moved.left[:NAMED]]
    if count > NAMED:
        lines.append(f"and {count - NAMED:,} more")
    stay = f"{plural(count, 'message')} {agree(count, 'stays', 'stay')}, which cannot be read"
    then = f"repair that and run `{command}` again; or have it a queue as before with `{command} --abandon`"
    return False, (*lines, f"{done}; {stay}", then)


class _Progress:
    """Says how far it is, not too often."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._next = time.monotonic() + TOLD_EVERY

    def __call__(self, moved: int, of: int) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + TOLD_EVERY
            self._tell(f"{moved:,} of {plural(of, 'message')} moved")


def _address(named: str) -> str:
    """What is named, as it is kept with the queue: a folder by its whole path. Raises CannotMove."""
    if not named.startswith(_SCHEMES):
        return str(Path(named).expanduser().resolve())
    try:
        return database(named)
    except ValueError as error:
        raise CannotMove(str(error).replace("queue.password_file", "--password-file")) from error


def _end(address: str, password: str, *, is_source: bool = False) -> AbstractAsyncContextManager[End]:
    now = SystemClock().now
    if not address.startswith(_SCHEMES):
        return SqliteEnd(Path(address), now, is_source=is_source)
    from engine.queue.postgres.connection import Server  # its driver takes long to load
    from engine.queue.postgres.moving import PostgresEnd

    return PostgresEnd(Server(address, password), now, is_source=is_source)


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise CannotMove(f"--password-file {file}: {why}") from error
