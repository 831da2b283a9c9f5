"""A message while it comes in: in memory as long as it is small, in a file of the spool once it is not.

What all sessions together hold in memory is so bounded by SPILL for each of them, whatever they are sent. One client
(a login, or the address of one who has none) may have a quarter of what there is, so that its half-sent messages shut
nobody else out.
"""

import asyncio
import errno
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from engine.base.clock import Clock
from engine.base.text import clean
from engine.intake.content import LARGE, SLICE
from engine.intake.floor import DiskFloor
from engine.intake.smtp.lately import Lately
from engine.intake.smtp.limits import address_key

log = logging.getLogger(__name__)

SPILL = LARGE  # octets of one message in memory; what is more goes to a file
SHARES = 4  # one client may have one of so many shares of the memory, and of the disk above its floor
_PREFIX = "incoming."  # of a file's name, where a file system gives none without


class NoRoom(Exception):
    """There is no room for more of this message; the text says why."""


class Storeroom:
    """Where messages lie while they come in, and how much of them there may be.

    `memory` and `on_disk` are octets at this moment, `may_hold` those allowed in memory. Files are made in `folder`
    (None: where the system keeps such) with mode 0600 and no name, so that a kill leaves none behind. They count
    against the `floor` twice, for each is written once more when it is queued. `most` is the largest message that is
    taken: for one there is room in every share.
    """

    def __init__(self, folder: Path | None, floor: DiskFloor | None, clock: Clock, *, may_hold: int, most: int) -> None:
        self.memory = 0
        self.on_disk = 0
        self.may_hold = may_hold
        self._folder = folder
        self._floor = floor
        self._most = most
        self._memory_of: Counter[str] = Counter()
        self._disk_of: Counter[str] = Counter()
        self._lately = Lately(clock)
        self._readers: set[asyncio.Future[Any]] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached lately."""
        return self._lately.texts

    def sweep(self) -> None:
        """Delete what a kill left here, where files have a name for a moment; nobody else may use the folder."""
        if self._folder is None:
            return
        with suppress(OSError):
            for path in list(self._folder.glob(f"{_PREFIX}*")):
                log.info("deleting %s, part of a message that did not come in whole", clean(path.name))
                path.unlink(missing_ok=True)

    def begin(self, client: str) -> "Incoming":
        """A message of this client begins to come in."""
        return Incoming(self, client)

    def open_file(self) -> IO[bytes]:
        """A file without a name. Raises OSError."""
        return tempfile.TemporaryFile(dir=self._folder, prefix=_PREFIX, buffering=0)

    def lend(self, reader: asyncio.Future[Any]) -> None:
        """A thread is at work with a message's file until this is done."""
        self._readers.add(reader)
        reader.add_done_callback(self._returned)

    async def finish(self, seconds: float) -> None:
        """Wait for the threads at work with files, at most `seconds`: who is late has nobody left to close his file."""
        if self._readers:
            _, late = await asyncio.wait(self._readers, timeout=seconds)
            if late:
                log.warning("%d messages were still being read or written when SMTP intake stopped", len(late))

    def take_memory(self, client: str, octets: int) -> None:
        """Count octets in memory. Raises NoRoom."""
        if self._memory_of[client] + octets > max(self.may_hold // SHARES, 2 * SPILL):
            self._refuse("client's memory", f"{client} holds its share of the memory for messages that come in")
        if self.memory + octets > self.may_hold:
            self._refuse("memory", "messages that come in hold all the memory there is for them")
        self.memory += octets
        self._memory_of[client] += octets

    def take_disk(self, client: str, octets: int) -> None:
        """Count octets on the disk. Raises NoRoom."""
        if self._floor is not None:
            if short := self._floor.why_not(self.on_disk + 2 * octets):
                self._refuse("disk", short)
            share = max((self._floor.room() + self.on_disk) // SHARES, self._most + SPILL)
            if self._disk_of[client] + octets > share:
                self._refuse("client's disk", f"{client} holds its share of the disk for messages that come in")
        self.on_disk += octets
        self._disk_of[client] += octets

    def give_back(self, client: str, *, memory: int = 0, disk: int = 0) -> None:
        """These octets are held no longer."""
        self.memory -= memory
        self.on_disk -= disk
        for held, octets in ((self._memory_of, memory), (self._disk_of, disk)):
            held[client] -= octets
            if held[client] <= 0:
                del held[client]

    def _returned(self, reader: asyncio.Future[Any]) -> None:
        self._readers.discard(reader)
        if not reader.cancelled():
            reader.exception()  # who waited for it may be gone, and it is not to be told as one nobody asked for

    def _refuse(self, kind: str, text: str) -> None:
        self._lately.reached(kind, f"452 to some messages: {text}")
        raise NoRoom(text)


class Incoming:
    """One message as it comes, piece by piece. `size` is in octets, `client` whose share it counts to.

    It must be closed, and may be more than once.
    """

    def __init__(self, room: Storeroom, client: str) -> None:
        self.size = 0
        self._room = room
        self.client = client
        self._held = bytearray()  # one, however small the pieces are: each of them alone would take more than it says
        self._in_memory = 0
        self._on_disk = 0
        self._file: IO[bytes] | None = None
        self._in_use: asyncio.Future[Any] | None = None
        self._closed = False

    async def add(self, piece: bytes) -> None:
        """Keep one more piece. Raises NoRoom; then nothing is kept any more. Raises OSError where the disk fails."""
        self.size += len(piece)
        if self._closed:
            return
        try:
            self._room.take_memory(self.client, len(piece))
            self._held += piece
            self._in_memory += len(piece)
            if self._in_memory > SPILL:
                await self._spill()
        except OSError as error:
            self.close()
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoRoom(clean(error.strerror or str(error), 200)) from error
            raise
        except NoRoom:
            self.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """The whole message, in pieces; in any thread, once all has come. Raises OSError."""
        if self._file is not None:
            self._file.seek(0)
            yield from iter(partial(self._file.read, SLICE), b"")
        yield bytes(self._held)

    def lend(self, reader: asyncio.Future[Any]) -> None:
        """A thread is at work with the file until this is done: it stays open for as long."""
        self._in_use = reader
        self._room.lend(reader)

    def release(self) -> None:
        """Let go of what has come and is somewhere else now. What it takes in memory is still counted."""
        self._held = bytearray()
        self._room.give_back(self.client, disk=self._on_disk)
        self._on_disk = 0
        if self._in_use is not None and not self._in_use.done():
            # Were the descriptor closed now, a thread at work with it might meet whatever is opened next.
            self._in_use.add_done_callback(lambda _: self._close_file())
        else:
            self._close_file()
        self._in_use = None  # which may hold all that was read

    def close(self) -> None:
        """Let go of all that is held, and keep nothing more."""
        self._closed = True
        self.release()
        self._room.give_back(self.client, memory=self._in_memory)
        self._in_memory = 0

    async def _spill(self) -> None:
        """Write what is in memory to the file. The loop is everyone's, so that a thread does it."""
        octets = self._in_memory
        self._room.take_disk(self.client, octets)
        self._on_disk += octets
        held, self._held = self._held, bytearray()
        writer = asyncio.get_running_loop().run_in_executor(None, self._write, held)
        del held
        self.lend(writer)
        await asyncio.shield(writer)
        if not self._closed:
            self._in_memory = 0
            self._room.give_back(self.client, memory=octets)

    def _write(self, held: bytearray) -> None:
        if self._file is None:
            self._file = self._room.open_file()
        rest = memoryview(held)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def client_name(address: str, login: str) -> str:
    """Whose share a message counts to: a login's, or that of the address of who has none."""
    return f"the login {clean(login, 60)}" if login else clean(address_key(address), 60)
