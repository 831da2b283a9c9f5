"""`smarthost sendmail`: what programs know as /usr/sbin/sendmail.

It reads a message from standard input and leaves it in the drop folder; who may not write there hands it over by SMTP.
Its exit status is one of sysexits.h: programs read it. Nothing is imported here that draws, relays or parses commands:
a web server starts this once for each message.
"""

import getopt
import os
import pwd
import sys
import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from engine.base.permission import others_may_write, refusal
from engine.base.text import clean
from engine.intake.errors import Unfit
from engine.intake.floor import DiskFloor
from engine.intake.sendmail import letter
from engine.settings.file import SettingsError, SettingsUnreadable, find, load_for_sender
from engine.settings.settings import Listen, Settings

# Options that take a value are followed by a colon. Most are known only so that whoever gives them is not refused.
_OPTIONS = "A:B:C:F:GL:N:O:R:UV:X:b:e:f:h:imno:p:r:tvx"
_MODES = {
    "s": "there is no SMTP on standard input; speak it to intake.smtp.listen",
    "p": "`smarthost queue` lists the queue",
    "i": "there are no aliases here",
    "d": "`smarthost serve` runs the engine",
    "D": "`smarthost serve` runs the engine",
    "v": "addresses are not verified here; `smarthost sendmail` only sends",
}
_ELSEWHERE = {
    "q": "the engine looks after its queue; `smarthost retry` makes messages due",
    "I": "there are no aliases here",
}

_TOO_MANY = "4.5.3"  # recipients (RFC 3463 3.6)


class Exit(IntEnum):
    """What programs understand, from sysexits.h."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOUSER = 67
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


class _Stop(Exception):
    """It goes no further; the text says why."""

    def __init__(self, status: Exit, why: str) -> None:
        super().__init__(why)
        self.status = status


def main(words: Sequence[str], *, config: Path | None = None, spool: Path | None = None) -> int:
    """Send what stands on standard input; give the exit status."""
    try:
        _send(words, config, spool)
    except _Stop as stop:
        sys.stderr.write(f"sendmail: {clean(str(stop), 500)}\n")
        return stop.status
    return Exit.OK


class _Asked:
    """What the words of the command say. Raises _Stop."""

    def __init__(self, words: Sequence[str]) -> None:
        self.sender: str | None = None
        self.full_name = ""
        self.from_header = False
        self.ignores_dot = False
        self.config: Path | None = None
        self.spool: Path | None = None
        try:
            options, self.recipients = getopt.gnu_getopt(list(words), _OPTIONS, ["config=", "spool="])
        except getopt.GetoptError as error:
            raise _Stop(Exit.USAGE, _ELSEWHERE.get(error.opt, error.msg)) from error
        for option, value in options:
            self._option(option, value)

    def _option(self, option: str, value: str) -> None:
        match option:
            case "-t":
                self.from_header = True
            case "-i":
                self.ignores_dot = True
            case "-o":
                self.ignores_dot |= value.startswith("i")
            case "-O":
                self.ignores_dot |= value.lower().startswith("ignoredots")
            case "-f" | "-r":
                self.sender = value
            case "-F":
                self.full_name = value
            case "-b" if value != "m":
                raise _Stop(Exit.USAGE, f"-b{value}: {_MODES.get(value[:1], 'no such mode; -bm sends')}")
            case "--config":
                self.config = Path(value)
            case "--spool":
                self.spool = Path(value).expanduser().absolute()


def _send(words: Sequence[str], config: Path | None, spool: Path | None) -> None:
    asked = _Asked(words)
    if not asked.recipients and not asked.from_header:
        raise _Stop(Exit.USAGE, "no recipients: name them as arguments, or in the message with -t")
    if sys.stdin is None:  # closed by whoever started this
        raise _Stop(Exit.USAGE, "there is no standard input, from which the message is read")
    try:
        settings = load_for_sender(find(asked.config or config))
    except SettingsUnreadable as error:  # nothing is wrong with the mail: cron and PHP must not lose it
        raise _Stop(Exit.TEMPFAIL, str(error)) from error
    except SettingsError as error:
        raise _Stop(Exit.CONFIG, str(error)) from error
    if place := asked.spool or spool:
        settings = replace(settings, spool=place.expanduser().absolute())
    limit = settings.intake.smtp.max_message_size
    text = _read(sys.stdin.buffer, limit, dot_ends=not asked.ignores_dot)
    if len(text) > limit:
        raise _Stop(Exit.DATAERR, f"the message is too big; intake.smtp.max_message_size allows {limit} octets")
    user, full_name = _caller()
    hand = letter.Hand(
        recipients=tuple(asked.recipients),
        user=user,
        full_name=asked.full_name or full_name,
        sender=asked.sender,
        from_header=asked.from_header,
    )
    try:
        made = letter.compose(text, hand, hostname=settings.hostname, rules=settings.intake.smtp, at=time.time())
    except letter.BadRecipient as error:
        raise _Stop(Exit.NOUSER, str(error)) from error
    except Unfit as error:
        raise _Stop(Exit.DATAERR, str(error)) from error
    _hand_over(made, settings)


def _hand_over(made: letter.Letter, settings: Settings) -> None:
    folder = settings.spool / "drop"
    try:
        if settings.intake.drop.enabled and letter.may_drop(folder):
            if short := DiskFloor(folder, settings.intake.min_free).why_not(len(made.content)):
                raise _Stop(Exit.TEMPFAIL, short)
            letter.drop_off(made, folder)
            return
        doors = (each for each in settings.intake.smtp.listen if isinstance(each, Listen) and each.port)
        door = next(doors, None)
        if door is None:
            raise _no_way_in(folder, settings)
        letter.say(made, door, settings.hostname)
    except letter.Turned as error:
        raise _Stop(_status(error), str(error)) from error
    except OSError as error:  # what smtplib raises where the line breaks is among them
        why = f"{error.strerror or error}{_not_ours(folder) if settings.intake.drop.enabled else ''}"
        raise _Stop(Exit.TEMPFAIL, f"not taken: {why}; try again later") from error


def _not_ours(folder: Path) -> str:
    """What keeps us from leaving mail in the folder, where it is our rights that do."""
    try:
        folder.stat()
    except PermissionError:
        return f"; and {refusal(folder, 'written to')}"
    except OSError:
        return ""
    return ""


def _no_way_in(folder: Path, settings: Settings) -> _Stop:
    """Why neither the folder nor SMTP takes it; what others may do, or we later, is not for good."""
    no_door = "intake.smtp.listen names no address"
    if not settings.intake.drop.enabled:
        return _Stop(Exit.CONFIG, f"no way in: intake.drop.enabled is false, and {no_door}")
    try:
        is_there = folder.is_dir()
    except PermissionError:
        is_there = True
    if is_there:
        why = _unsafe(folder) or refusal(folder, "written to")
        return _Stop(Exit.TEMPFAIL, f"no way in: {why}; and {no_door}")
    return _Stop(Exit.CONFIG, f"no way in: there is no folder {folder}, and {no_door}")


def _unsafe(folder: Path) -> str:
    """That others may write to the folder or the spool, or ""."""
    try:
        open_to_others = others_may_write(folder, may_be_shared=True) or others_may_write(folder.parent)
    except OSError:
        return ""
    return f"others may write to {folder}, or to the folder it lies in" if open_to_others else ""


def _status(error: letter.Turned) -> Exit:
    if error.enhanced == _TOO_MANY:  # for a transaction; it will be so at the next try, too
        return Exit.DATAERR
    if not 500 <= error.code < 600:
        return Exit.TEMPFAIL
    if error.enhanced.startswith("5.7."):
        return Exit.NOPERM
    return Exit.NOUSER if error.command.startswith("RCPT") else Exit.DATAERR


def _read(source: BinaryIO, limit: int, *, dot_ends: bool) -> bytes:
    """Read to the end, or to a line that is a dot alone; no more than one octet over the limit, or about it."""
    if not dot_ends:
        return source.read(limit + 1)
    lines: list[bytes] = []
    size = 0
    while size <= limit and (line := source.readline(limit + 1)):
        if line.rstrip(b"\r\n") == b"." and (not lines or lines[-1].endswith(b"\n")):
            break
        lines.append(line)
        size += len(line)
    return b"".join(lines)


def _caller() -> tuple[str, str]:
    """The name of the user who runs this, and what they are called (the first part of the GECOS field)."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid{os.getuid()}", ""
    return entry.pw_name, entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
