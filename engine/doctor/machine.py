"""This machine: its clock, the disk of the spool, the certificate for those who log in, and the modes of files."""

import ctypes
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cryptography import x509

from engine.base.text import clean
from engine.intake.errors import IntakeError
from engine.intake.smtp.tls import server_context
from engine.model.finding import Finding, Result
from engine.settings.settings import Submission

CERTIFICATE_DAYS = 21  # before a certificate's end, from when on it is told
APART = 5.0  # seconds that this machine's clock and the database's may be apart

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX = 512  # bytes, more than its struct has
_MIB = 2**20


# -- the clock --------------------------------------------------------------------------------------------------------


def is_synchronised() -> bool | None:
    """Whether the kernel's clock is kept right by others (adjtimex(2)); None where it does not say."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return None
    state = adjtimex(ctypes.create_string_buffer(_TIMEX))  # no mode is set: it only tells
    return None if state < 0 else state != _TIME_ERROR


def clock(synchronised: Callable[[], bool | None] = is_synchronised) -> Finding:
    """Whether the clock is kept right: retries, dates of bounces, certificates and tokens go by it."""
    match synchronised():
        case None:
            return Finding(name="clock", result="skipped", text="the kernel does not say whether it is synchronised")
        case True:
            return Finding(name="clock", result="ok", text="synchronised, as the kernel says")
        case _:
            todo = "run chrony, systemd-timesyncd or ntpd, on the host where this is a container"
            return Finding(name="clock", result="warn", text="the kernel says that nobody keeps it right", todo=todo)


async def database_clock(time_there: Callable[[], Awaitable[float]], now: Callable[[], float] = time.time) -> Finding:
    """Whether the database's clock and ours go together. `time_there` raises OSError, or an error that says why."""
    begun = now()
    there = await time_there()
    apart = there - (begun + now()) / 2
    if abs(apart) > APART:
        text = f"the database's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
        todo = "have both synchronised: mail goes by the database's"
        return Finding(name="database", result="warn", text=text, todo=todo)
    return Finding(name="database", result="ok", text="answers, and its clock and this machine's go together")


# -- the disk ---------------------------------------------------------------------------------------------------------


def disk(spool: Path, unsafe: Callable[[Path], str], *, is_taken: bool) -> Finding:
    """Whether the spool's file system keeps what it says it has written. `is_taken`: the settings take any."""
    folder = existing(spool)
    kind = unsafe(folder)
    if not kind:
        return Finding(name="disk", result="ok", text=f"{folder} is on a disk of this machine")
    text = f"{folder} is on a file system of kind {kind}, on which the queue is not safe"
    todo = "put the spool on a disk of this machine (spool = ...)"
    return Finding(name="disk", result="warn" if is_taken else "bad", text=text, todo=todo)


def free_in(folder: Path) -> int:
    """Bytes that are free in a folder's file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def space(spool: Path, min_free: int, free: Callable[[Path], int] = free_in) -> Finding:
    """Whether more is free than intake.min_free, and some more than that."""
    folder = existing(spool)
    left = free(folder)
    text = f"{left // _MIB:,} MiB free in {folder}, intake.min_free is {min_free // _MIB:,} MiB"
    if left < min_free:
        return Finding(name="space", result="bad", text=text, todo="make room: no mail is taken in")
    if left < 2 * min_free:
        return Finding(name="space", result="warn", text=text, todo="make room: soon no mail is taken in")
    return Finding(name="space", result="ok", text=text)


def is_ours(folder: Path) -> bool:
    """Whether a folder is there, and of the user that this process has."""
    try:
        return folder.stat().st_uid == os.geteuid()
    except OSError:
        return False


def existing(folder: Path) -> Path:
    """A folder, or the one above it that is there: the spool may be yet to be made."""
    return next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))


# -- files ------------------------------------------------------------------------------------------------------------


def certificate(submission: Submission, now: Callable[[], float] = time.time) -> Finding:
    """Whether the certificate of submission can be used with its key, and for how long."""
    name = "certificate"
    if not (submission.listen or submission.listen_tls) or submission.certificate is None:
        return Finding(name=name, result="skipped", text="nobody may log in here ([intake.submission])")
    try:
        server_context(submission)
        chain = x509.load_pem_x509_certificates(submission.certificate.read_bytes())
    except IntakeError as error:
        return Finding(name=name, result="bad", text=str(error))
    except (OSError, ValueError) as error:
        return Finding(name=name, result="bad", text=f"{submission.certificate}: {clean(str(error), 200)}")
    ends = min(one.not_valid_after_utc for one in chain)  # an authority's may end before its own
    days = (ends.timestamp() - now()) / 86_400
    when = ends.strftime("%Y-%m-%d")
    result: Result = "bad" if days < 0 else "warn" if days < CERTIFICATE_DAYS else "ok"
    text = f"{submission.certificate} {'ended' if days < 0 else 'ends'} on {when}"
    todo = "" if result == "ok" else "put a new one in its place, and start the relay anew"
    return Finding(name=name, result=result, text=text, todo=todo)


def files(notes: Sequence[str]) -> list[Finding]:
    """What the settings note of themselves, and of the files and folders that they name."""
    told = [note for note in notes if not note.startswith("hostname:")]  # which is looked at by itself
    if not told:
        return [Finding(name="settings", result="ok", text="nothing to be noted of them, nor of the files they name")]
    return [Finding(name="settings", result="bad" if note.startswith("spool:") else "warn", text=note) for note in told]
