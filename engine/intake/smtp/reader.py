"""How a message is read after DATA: up to its final dot, within a size, within a time, and not too slowly."""

import asyncio
import logging

from engine.base.text import clean
from engine.intake.errors import Refused
from engine.intake.reply import FULL, SICK, goodbye, too_big
from engine.intake.smtp.connection import Connection
from engine.intake.smtp.incoming import Incoming, NoRoom

log = logging.getLogger(__name__)

WHOLE_MESSAGE = 1800.0  # seconds a client may take for one message
GRACE = 60.0  # seconds of DATA before the least rate counts
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
    """Reads one message into `incoming`, which must be closed by whoever made it.

    `limit` is how many octets it may have; `least_rate` is a pace's, which begins now.
    """

    def __init__(
        self, connection: Connection, incoming: Incoming, *, hostname: str, limit: int, least_rate: int
    ) -> None:
        self.incoming = incoming
        self._connection = connection
        self._hostname = hostname
        self._limit = limit
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
        while not self._is_whole:
            connection.heard(until=self._pace.until(incoming.size))
            piece = await connection.up_to(END)
            self._is_whole = piece.endswith(END)
            await self._keep(piece)
            if self._refused and not self._is_whole and incoming.size > 2 * (self._limit + len(END)):
                reply = goodbye("4.3.4", self._hostname, too_big(self._limit).text)
                raise Refused(reply, "too big", f"more than {incoming.size} octets")
        connection.heard()  # from here on the client waits
        if self._refused:
            raise self._refused

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
        if size > self._limit + len(END):
            self.incoming.close()
            self._refused = Refused(too_big(self._limit), "too big", f"{size} octets")
