"""Settings that are files, folders and programs, and the groups that may use them.

Each reader is as those of engine.settings.values.
"""

import grp
from pathlib import Path

from engine.base.permission import refusal, why_not
from engine.base.socket_file import EVERYBODY
from engine.settings.values import each, shown, text

_MAIL_LOGS = ("stderr", "journal", "syslog", "none")


def program(value: object) -> tuple[str, ...]:
    """A program by its absolute path, which may be run, and its arguments; [] for none."""
    words: tuple[str, ...] = each(text)(value)
    if words and not Path(words[0]).is_absolute():
        raise ValueError(f"[0]: {shown(words[0])} is no absolute path; write where the program is: /usr/bin/token")
    return words


def mail_log(value: object) -> str:
    """One of stderr, journal, syslog, none, or the absolute path of a file."""
    written = text(value)
    if written in _MAIL_LOGS:
        return written
    if not Path(written).is_absolute():
        raise ValueError(f"{shown(value)} is none of {', '.join(_MAIL_LOGS)}, nor the absolute path of a file")
    return written


def folder(value: object) -> Path:
    """The absolute path of a folder, or of one that can be made; `~` is the user's home."""
    path = folder_unseen(value)
    try:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{shown(value)} is not a folder; write the absolute path of one")
    except PermissionError:
        raise ValueError(refusal(path, "entered")) from None
    return path


def folder_unseen(value: object) -> Path:
    """The same for whoever need not look at it."""
    written = text(value)
    if not written:
        raise ValueError("it is empty; write the absolute path of a folder")
    path = Path(written).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{shown(value)} depends on where one stands; write the absolute path of a folder")
    return path


def file(value: object) -> Path | None:
    """The absolute path of a file, whether it is there or not; "" for none."""
    written = text(value)
    if not written:
        return None
    path = Path(written).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{shown(value)} depends on where one stands; write the absolute path of a file")
    return path


def readable_file(value: object) -> Path | None:
    """The absolute path of a file that can be read; "" for none."""
    path = file(value)
    if path is None:
        return None
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"{why_not(error, path, 'read')}; it must be a file we may read") from error


def key_file(value: object) -> Path:
    """The absolute path of a file that can be read, which must be named."""
    return _named(readable_file(value))


def key_file_unseen(value: object) -> Path:
    """The same for whoever need not look at it."""
    return _named(file(value))


def group(value: object) -> str:
    """The name of a group of this machine; "" for none."""
    name = text(value)
    if name:
        try:
            grp.getgrnam(name)
        except KeyError:
            raise ValueError(f"this machine has no group {shown(value)}; name one that it has, or none") from None
    return name


def group_or_everybody(value: object) -> str:
    """The name of a group of this machine, "*" for everybody on it, "" for no one besides the owner."""
    if value == EVERYBODY:
        return EVERYBODY
    try:
        return group(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "*" for everybody on this machine') from error


def _named(path: Path | None) -> Path:
    if path is None:
        raise ValueError("it is empty; write the absolute path of a file")
    return path
