"""One file in the drop folder: read if it may be, taken away when it is queued, set aside when it is unfit."""

import errno
import itertools
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from engine.base.text import clean
from engine.intake.errors import NotYet, Unfit

SETTLE = 1.0  # seconds a file must have been as it is

_MAX_NAME = 200  # octets of a name that is set aside: a number and ".reason" must fit into what file systems allow
_FOR_GOOD = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENODEV}
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class Look(Struct, frozen=True):
    """What a file was like when it was looked at: where that changes, somebody is at work on it."""

    inode: int
    links: int
    size: int
    modified: int


def look_at(path: Path) -> Look:
    """Look without opening: to open a device or a FIFO may do something. Raises Unfit, FileNotFoundError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise Unfit(f"it is {kind}; only regular files are taken")
    return _of(found)


def read(path: Path, look: Look, limit: int) -> bytes:
    """Read a file that is still as it was looked at. `limit` is in octets.

    Raises Unfit, NotYet where it has changed, FileNotFoundError, and OSError where trying again may help.
    """
    if look.links != 1:
        raise Unfit(f"it has {look.links} hard links; move or copy files into the folder, do not link them")
    if look.size > limit:
        raise Unfit(f"it has {look.size} octets; intake.smtp.max_message_size allows {limit}")
    try:
        # O_NONBLOCK: should it have become a FIFO since, this does not wait for somebody to write to it.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _FOR_GOOD:
            raise Unfit(f"it cannot be read: {error.strerror}; it must be a file this service may read") from error
        raise
    with os.fdopen(file, "rb", buffering=0) as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or _of(found) != look:
            raise NotYet
        if found.st_uid not in {os.geteuid(), 0}:
            raise Unfit(f"it belongs to user {found.st_uid}; files of user {os.geteuid()} and of root are taken")
        chunks = list(iter(lambda: opened.read(1 << 20), b""))
        if _of(os.fstat(file)) != look:
            raise NotYet
    return b"".join(chunks)


def take_away(path: Path, look: Look) -> None:
    """Delete a file that was queued, unless another has taken its name meanwhile. Raises OSError."""
    with suppress(FileNotFoundError):
        if _of(path.lstat()) == look:
            path.unlink()


def set_aside(path: Path, folder: Path, why: str, at: float) -> Path:
    """Move an unfit file into `folder`, a `.reason` beside it; nothing that is there is overwritten.

    A folder that is not there is made anew: whoever clears it away may take it with him. Gives where the file is now.
    Raises FileNotFoundError when it has gone, and OSError.
    """
    try:
        return _moved(path, folder, why, at)
    except FileNotFoundError:
        path.lstat()
        folder.mkdir(mode=0o700, exist_ok=True)
        return _moved(path, folder, why, at)


def _moved(path: Path, folder: Path, why: str, at: float) -> Path:
    for number in itertools.count(1):
        target = folder / _numbered(path.name, number)
        reason = target.with_name(f"{target.name}.reason")
        try:
            # The name is ours once its reason is: made only if it was not there.
            file = os.open(reason, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        if os.path.lexists(target):
            os.close(file)
            reason.unlink()
            continue
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
        try:
            with os.fdopen(file, "w", encoding="utf-8") as opened:
                opened.write(f"{clean(path.name, 255)} was not taken on {when}: {why}\n")
                opened.write("To send it, mend it and move it back into the drop folder.\n")
            path.rename(target)
        except OSError:
            reason.unlink()
            raise
        return target
    raise AssertionError("itertools.count has no end")


def _numbered(name: str, number: int) -> str:
    """`a.eml`, `a-2.eml`, `a-3.eml`; a name too long for what is added to it is cut."""
    stem = os.fsencode(name).removesuffix(b".eml")[:_MAX_NAME]
    return os.fsdecode((stem if number == 1 else b"%b-%d" % (stem, number)) + b".eml")


def _of(found: os.stat_result) -> Look:
    return Look(found.st_ino, found.st_nlink, found.st_size, found.st_mtime_ns)
