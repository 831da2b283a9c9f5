"""Drop files: whatever lies in the folder is taken whole, or set aside with the reason beside it, and nothing else."""

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hypothesis import strategies as st
from msgspec import Struct

from engine.base.text import clean
from engine.intake.drop.folder import DropIntake
from engine.model.message import NewMessage
from engine.settings.settings import Intake, Settings, Smtp
from tests.clock import FakeClock
from tests.fuzz.fuzzing import Fault, Fuzzer
from tests.unit.fake_arrivals import FakeArrivals

PATIENCE = 20.0  # seconds until every file must have left the folder
LARGEST = 64 * 1024  # bytes of a message
LONG_AGO = 1_700_000_000  # when the files were written: nobody is at work on them

# Fields that are the envelope's, or are for nobody's eyes: they may be missing in what is sent.
_MAY_GO = frozenset({b"bcc", b"resent-bcc", b"return-path", b"x-envelope-from", b"x-envelope-to", b"content-length"})
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")

Kind = Literal["file", "link", "hard link", "fifo", "folder"]

_HEADS = (
    b"From: ann@example.com\nTo: bob@example.org\nSubject: hi\n",
    b"X-Envelope-From: <>\r\nX-Envelope-To: bob@example.org\r\n",
    b"X-Envelope-To: a@b.example, c@d.example\nX-Envelope-From: ann@example.com\n",
    b"From: A <a@b.example>, b@c.example\n", b"To: group: a@b.example, B <c@d.example>;, \"x, y\" <e@f.example>\n",
    b"Bcc: secret@example.org\n", b"Sender: a@b.example\n", b"From: ann@example.com\rTo: bob@example.org\r",
    b"To:\n bob@example.org,\n\tcy@example.org\n", b"Received: x\n" * 60, b"From: =?utf-8?q?=00?= <a@b.example>\n",
    b"Subject: \xff\xfe\x1b[2J\n", b"Resent-Bcc: s@t.example\n", b" folded first\n",
    "From: jürgen@bücher.example\nTo: ü@example.org\n".encode(), b"To: bob@example.org (a (nested) comment)\n",
    b"X: \n\t\n", b"From: ann@example.com\nTo: " + b"a@b.example, " * 500 + b"c@d.example\n",
    b"Return-Path: <x@y.example>\n", b"no field\n",
)  # fmt: skip
_BODIES = (
    b"", b"\nbody\n", b"\r\n.\r\n.\r\nMAIL FROM:<x@y.example>\r\n", b"\n.\n", b"\r\r\n\n", b"\n" + b"x" * 70_000,
    b"\n\x00", b"\n\xff\x80", b"\n" + b"line\n" * 300, b"\r\n\r", b"body without a blank line",
)  # fmt: skip


class File(Struct, frozen=True):
    """One file as it is moved into the folder."""

    name: str
    content: bytes
    kind: Kind = "file"


_name = st.one_of(
    st.sampled_from(
        ("caf\udce9", "a", "-rf", "a b", "ü", "x" * 240, "\x1b[2J", "a\n", "$(x)", "failed", "..", "a.eml", "%s", "'")
    ),
    st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), min_size=1, max_size=20),
)
_head, _body = st.sampled_from(_HEADS), st.sampled_from(_BODIES)
_content = st.one_of(
    st.builds(lambda heads, body: b"".join(heads) + body, st.lists(_head, max_size=4), _body),
    st.builds(
        lambda head, body, junk, at: head[:at] + junk + head[at:] + body,
        _head,
        _body,
        st.binary(max_size=5),
        st.integers(0, 40),
    ),
    st.binary(max_size=100),
)
_file = st.builds(
    File,
    _name,
    _content,
    kind=st.sampled_from(("file", "file", "file", "file", "file", "file", "link", "hard link", "fifo", "folder")),
)


class DropFiles(Fuzzer[tuple[File, ...]]):
    """drop files: names, kinds and contents of any sort, several at a time."""

    FOUND = (
        (File("a", b"From: a@b.example\nTo: c@d.example\n\nbody\n"),),
        (File("a", b""), File("b", b"\x00"), File("c", b"From: a@b.example\nTo: c@d.example\n\n.\n")),
        (File("x" * 240, b"no envelope"), File("y", b"", "fifo"), File("z", b"", "folder"), File("w", b"", "link")),
    )
    SHORT = 60

    @property
    def cases(self) -> st.SearchStrategy[tuple[File, ...]]:
        return st.lists(_file, min_size=1, max_size=8, unique_by=lambda file: file.name).map(tuple)

    async def open(self) -> None:
        self._open = contextlib.AsyncExitStack()
        self._beside = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="sh-")))
        self._folder = self._beside / "drop"
        self._others: list[Path] = []
        self._queue = FakeArrivals()
        self._clock = FakeClock()
        settings = Settings(hostname="relay.example.net", intake=Intake(smtp=Smtp(max_message_size=LARGEST)))
        self._drop = DropIntake(self._queue, self._folder, settings, self._clock)
        await self._drop.start()
        self._open.push_async_callback(self._drop.stop)

    async def close(self) -> None:
        await self._open.aclose()

    async def check(self, case: tuple[File, ...]) -> None:
        for kept in (self._queue.messages, self._queue.events_recorded, self._queue.forgotten):
            kept.clear()
        for left in (self._folder / "failed").iterdir():  # by a case that ended in a fault
            left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
        told_apart = {_origin(f"{file.name}.eml"): file for file in case}.values()
        placed = {name: file for file in told_apart if (name := self._place(file)) is not None}
        await self._until_gone(placed)
        taken = {_origin(name): file for name, file in placed.items()}
        for message in self._queue.messages:
            file = taken.pop(message.origin, None)
            if file is None or file.kind != "file":
                raise Fault(f"something was taken that is no file: {message.origin}, {file}")
            _is_whole(file.content, message)
        self.went_well += bool(self._queue.messages)
        if len(aside := self._set_aside()) != len(taken):
            raise Fault(f"{len(placed)} came, {len(self._queue.messages)} were taken, and set aside are {aside}")
        if self._drop.trouble:
            raise Fault(f"trouble: {self._drop.trouble}")

    def _place(self, file: File) -> str | None:
        """Move a file into the folder; give its name there. None: no file can have such a name."""
        made = self._beside / "made"
        name = f"{file.name}.eml"
        if len(os.fsencode(name)) > 255 or name.startswith("."):
            return None
        match file.kind:
            case "file" | "hard link":
                made.write_bytes(file.content)
            case "link":
                made.symlink_to("/etc/hostname")
            case "fifo":
                os.mkfifo(made)
            case "folder":
                made.mkdir()
        os.utime(made, (LONG_AGO, LONG_AGO), follow_symlinks=False)
        if file.kind == "hard link":
            other = self._beside / f"other name {len(self._others)}"
            other.hardlink_to(made)
            self._others.append(other)
        made.rename(self._folder / name)
        return name

    async def _until_gone(self, placed: dict[str, File]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                # A look that the watch does not call for comes by the clock.
                for turn in range(10**6):
                    if not any(os.path.lexists(self._folder / name) for name in placed):
                        return
                    await asyncio.sleep(0.005)
                    if turn % 100 == 99:
                        await self._clock.advance(31.0)
        except TimeoutError:
            left = [name for name in placed if os.path.lexists(self._folder / name)]
            raise Fault(f"neither taken nor set aside: {left}") from None
        finally:
            while self._others:
                self._others.pop().unlink()
            for name in placed:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    (self._folder / name).unlink()

    def _set_aside(self) -> list[str]:
        """What lies in `failed`, each with its reason; they are taken away."""
        found = [path for path in (self._folder / "failed").iterdir() if path.suffix == ".eml"]
        for path in found:
            reason = path.with_name(f"{path.name}.reason")
            said = reason.read_text(encoding="utf-8")
            if "was not taken" not in said or clean(said.replace("\n", ""), 10_000) != said.replace("\n", ""):
                raise Fault(f"a reason that is none, or cannot be shown: {said!r}")
            reason.unlink()
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        if rest := sorted(path.name for path in (self._folder / "failed").iterdir()):
            raise Fault(f"reasons without a file: {rest}")
        return [path.name for path in found]


def _origin(name: str) -> str:
    return f"drop {clean(name, 255)}"


def _is_whole(content: bytes, message: NewMessage) -> None:
    """What was taken is what lay there: its Received field first, some fields left out, line ends made CRLF."""
    came = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    came += b"" if came.endswith(b"\r\n") else b"\r\n"
    head, sent = _first_field(message.content)
    if not head.lower().startswith(b"received:"):
        raise Fault(f"no Received field on top: {head[:80]!r}")
    expected, rest = list(_fields(came)), came
    rest = came[sum(map(len, expected)) :]
    for field in expected:
        if sent.startswith(field):
            sent = sent.removeprefix(field)
        elif field.partition(b":")[0].strip().lower() not in _MAY_GO:
            raise Fault(f"a field is missing: {field[:80]!r}")
    if sent not in (rest, b"\r\n" + rest):
        raise Fault(f"the body is another: {sent[:80]!r} for {rest[:80]!r}")
    if len(message.recipients) != len(set(message.recipients)) or not message.recipients:
        raise Fault(f"recipients: {message.recipients}")


def _fields(content: bytes) -> Iterator[bytes]:
    """The header fields, each with its folded lines; the first line that is no field ends them."""
    while _FIELD.match(content):
        field, content = _first_field(content)
        yield field


def _first_field(content: bytes) -> tuple[bytes, bytes]:
    """The first line with those that continue it, and what follows."""
    end = content.find(b"\r\n") + 2
    while content[end : end + 1] in (b" ", b"\t"):
        end = content.find(b"\r\n", end) + 2
    return content[:end], content[end:]
