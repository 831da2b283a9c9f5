"""How a message is read, after DATA or in chunks: to its end, within a size, within a time, and not too slowly."""

import asyncio
import logging

from msgspec.structs import replace

from engine.base.text import clean
from engine.intake.errors import Refused
from engine.intake.reply import FULL, SICK, Reply, goodbye, too_big
from engine.intake.smtp.chunk import Chunk
from engine.intake.smtp.connection import Connection
from engine.intake.smtp.incoming import Incoming, NoRoom

log = logging.getLogger(__name__)

WHOLE_MESSAGE = 1800.0  # seconds a client may take for one message
GRACE = 60.0  # seconds of a message before the least rate counts
MAX_CHUNKS = 100_000  # of one message: at 8 KiB each, as some clients send them, more than the largest may have
END = b"\r\n.\r\n"


class Pace:
    """Until when more of a message must have come: on average `least` octets a second after the first minute.

    `least` 0 asks for no rate. A client that is slower holds a session, and room on the disk, that others wait for;
    no line that carries mail today is.
    """

    def __init__(self, least: int, began: float) -> None:
        self._least = least
        self._began = began

    def until(self, octets: int) -> float:
        """The time, on the loop's clock, at which a client that has sent so many octets is too slow."""
        whole = self._began + WHOLE_MESSAGE
        return min(whole, self._began + GRACE + octets / self._least) if self._least else whole

    def judged(self, octets: int, now: float) -> str:
        """Why a client that has sent so many octets by now is too slow, or ""."""
        if now < self.until(octets):
            return ""
        if self._least and now < self._began + WHOLE_MESSAGE:
            return f"at least {self._least} octets a second are expected"
        return f"a message may take {WHOLE_MESSAGE:.0f} seconds"


class Reader:
    """Reads one message into `incoming`, which must be closed by whoever made it: with `read`, or with `read_chunk`s.

    `limit` is how many octets it may have; `least_rate` is a pace's, which begins now.
    """

    def __init__(
        self, connection: Connection, incoming: Incoming, *, hostname: str, limit: int, least_rate: int
    ) -> None:
        self.incoming = incoming
        self._connection = connection
        self._hostname = hostname
        self._limit = limit
        self._around = 0  # octets that are read with the message and are none of it
        self._chunks = 0
        self._pace = Pace(least_rate, asyncio.get_running_loop().time())
        self._is_whole = False
        self._refused: Refused | None = None

    async def read(self) -> None:
        """Read up to the final dot; all of it is in `incoming` then (see Submitted). Raises Refused, Gone.

        Only CRLF.CRLF ends a message (RFC 5321 4.1.1.4): whatever else a careless relay might take for the end is part
        of it, so that no second message can hide in the first. What is refused is read to its end all the same, since
        the client hears nothing before; but not for ever. Waits for the client as long as its pace allows, and a
        command's time for each piece.
        """
        connection, incoming = self._connection, self.incoming
        # The line end of DATA itself may be the one before the dot: then there is no content.
        connection.put_back(END[:2])
        self._around = len(END)
        while not self._is_whole:
            connection.heard(until=self.until)
            piece = await connection.up_to(END)
            self._is_whole = piece.endswith(END)
            await self._keep(piece)
            if self._refused and not self._is_whole and incoming.size > self._most:
                reply = goodbye("4.3.4", self._hostname, too_big(self._limit).text)
                raise Refused(reply, "too big", f"more than {incoming.size} octets")
        connection.heard()  # from here on the client waits
        if self._refused:
            raise self._refused

    async def read_chunk(self, chunk: Chunk) -> None:
        """Read the octets of a BDAT, which are nothing but that, whatever is in them. Raises Refused, Gone.

        What is refused is read to the end of its chunk, since the octets come anyway (RFC 3030 2); but where they are
        more than that is done for, the session ends before them. Waits as `read` does; the time of the message goes on
        between its chunks, too.
        """
        connection, octets = self._connection, chunk.octets
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            too_many = Reply(552, "5.3.4", f"Too many chunks; at most {MAX_CHUNKS} of a message are taken")
            self.refuse(Refused(too_many, "too big", f"more than {MAX_CHUNKS} chunks"))
        if (size := self.incoming.size + octets) > self._most:
            reply = replace(too_big(self._limit), closes=True)
            raise Refused(reply, "too big", f"{size} octets announced")
        connection.heard(until=self.until)
        while octets:
            piece = await connection.at_most(octets)
            octets -= len(piece)
            await self._keep(piece)
            connection.heard(until=self.until)
        if self._refused:
            connection.heard()
            raise self._refused
        if chunk.is_last:
            self._is_whole = True
            connection.heard()  # from here on the client waits

    def refuse(self, refused: Refused) -> None:
        """Nothing of the message is kept from here on, and this is what is said of it."""
        self.incoming.close()
        self._refused = self._refused or refused

    @property
    def until(self) -> float:
        """The time, on the loop's clock, at which the client is too slow if nothing more has come."""
        return self._pace.until(self.incoming.size)

    @property
    def _most(self) -> int:
        """How many octets are read of what is refused."""
        return 2 * (self._limit + len(END))

    def too_slow(self) -> str:
        """Why the client is too slow by now, or ""."""
        now = asyncio.get_running_loop().time()
        return "" if self._is_whole else self._pace.judged(self.incoming.size, now)

    async def _keep(self, piece: bytes) -> None:
        """Keep one more piece, unless all is refused. What waits for the disk ends with the client's time, too."""
        size = self.incoming.size + len(piece)
        try:
            await self.incoming.add(piece)
        except NoRoom as error:
            self._refused = Refused(FULL, "no room", f"{size} octets: {error}")
        except OSError as error:
            log.error("a message that comes in cannot be written down: %s", clean(str(error), 200))
            self._refused = Refused(SICK, "fault", f"{size} octets")
        if size > self._limit + self._around:
            self.incoming.close()
            self._refused = Refused(too_big(self._limit), "too big", f"{size} octets")
