"""A folder is watched: the kernel says when something comes into it, and nobody wakes up before.

With inotify(7) on the loop. The library asked for before, watchfiles, sleeps twenty milliseconds at a time for as long
as it watches, and ends for good at the first name that is no UTF-8; of this one the names are octets.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

_CAME = flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE
_LOST = flags.DELETE_SELF | flags.MOVE_SELF
_ENDED = _LOST | flags.UNMOUNT | flags.IGNORED


class CannotWatch(Exception):
    """The folder is not watched, or not any more; the text says why."""


class NoWatch(CannotWatch):
    """There is no way to watch a folder on this system, and never will be."""


async def watch(folder: Path, is_meant: Callable[[str], bool], came: Callable[[], None]) -> None:
    """Call `came` once when the watch is on, and whenever a file whose name is meant has come, until cancelled.

    Names are as `os.fsdecode` gives them. What came before the watch was on is for the caller to find: at the first
    call. Raises CannotWatch when the folder has gone, has moved or cannot be watched, NoWatch where no
    folder can be.
    """
    try:
        await asyncio.to_thread(_warm_up)
        with INotify(nonblocking=True) as inotify:
            inotify.add_watch(folder, _CAME | _LOST | flags.ONLYDIR)
            await _heed(inotify, is_meant, came)
    except AttributeError as error:  # of a system without it
        raise NoWatch("this system has no inotify") from error
    except OSError as error:
        more = " (fs.inotify.max_user_watches)" if error.errno == errno.ENOSPC else ""
        more = " (fs.inotify.max_user_instances)" if error.errno == errno.EMFILE else more
        raise CannotWatch(f"{os.strerror(error.errno or 0)}{more}") from error


async def _heed(inotify: INotify, is_meant: Callable[[str], bool], came: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        try:
            events = inotify.read(timeout=0)
        except OSError as error:
            if not lost.done():
                lost.set_result(os.strerror(error.errno or 0))
            return
        if any(event.mask & flags.Q_OVERFLOW or is_meant(event.name) for event in events):
            came()
        if any(event.mask & _ENDED for event in events) and not lost.done():
            lost.set_result("it has gone, or was moved")

    loop.add_reader(inotify.fileno(), read)
    try:
        came()
        why = await lost
    finally:
        loop.remove_reader(inotify.fileno())
    raise CannotWatch(why)


def _warm_up() -> None:
    """The first of its kind looks for the C library, by running a program: not on the loop."""
    INotify().close()
