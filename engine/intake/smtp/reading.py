"""How a message is read after DATA: up to its final dot, within a size, within a time, and not too slowly."""

import logging
from collections.abc import Callable

from engine.base.text import clean
from engine.intake.errors import Refused
from engine.intake.reply import FULL, SICK, goodbye, too_big
from engine.intake.smtp.connection import Connection
from engine.intake.smtp.incoming import Incoming, NoRoom

_LOG = logging.getLogger(__name__)

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


async def read_message(
    connection: Connection, incoming: Incoming, *, hostname: str, limit: int, heard: Callable[[], None]
) -> None:
    """Read up to the final dot; all of it is in `incoming` then, unless Refused is raised (see Submitted).

    Only CRLF.CRLF ends a message (RFC 5321 4.1.1.4): whatever else a careless relay might take for the end is part of
    it, so that no second message can hide in the first. What is refused is read to its end all the same, since the
    client hears nothing before; but not for ever. `heard` is called with each piece that comes. Raises Gone as well.
    """
    connection.put_back(END[:2])  # the line end of DATA itself may be the one before the dot: then there is no content
    refused: Refused | None = None
    is_whole = False
    while not is_whole:
        piece = await connection.until(END)
        is_whole = piece.endswith(END)
        refused = await _kept(incoming, piece, limit) or refused
        if refused and not is_whole and incoming.size > 2 * (limit + len(END)):
            gone = goodbye("4.3.4", hostname, too_big(limit).text)
            raise Refused(gone, "too big", f"more than {incoming.size} octets")
        heard()
    if refused:
        raise refused


async def _kept(incoming: Incoming, piece: bytes, limit: int) -> Refused | None:
    """Keep one more piece; or give why none is kept."""
    refused = None
    try:
        await incoming.add(piece)
    except NoRoom as error:
        refused = Refused(FULL, "no room", f"{incoming.size} octets: {error}")
    except OSError as error:
        _LOG.error("a message that comes in cannot be written down: %s", clean(str(error), 200))
        refused = Refused(SICK, "fault", f"{incoming.size} octets")
    if incoming.size > limit + len(END):
        incoming.close()
        refused = Refused(too_big(limit), "too big", f"{incoming.size} octets")
    return refused
