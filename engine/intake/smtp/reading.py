"""How a message is read after DATA: up to its final dot, within a size, within a time, and not too slowly."""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

from engine.base.text import clean
from engine.intake.content import MAX_LINE
from engine.intake.smtp.incoming import Incoming, NoRoom
from engine.intake.smtp.stream import Stream

_LOG = logging.getLogger(__name__)

WHOLE_MESSAGE = 1800.0  # seconds a client may take for one message
GRACE = 60.0  # seconds of DATA before the least rate counts
END = b"\r\n.\r\n"

_STARTS_OF_END = tuple(END[:length] for length in range(1, len(END)))


class TooLong(Exception):
    """The client sends far more than it may, and no end of it."""


class TooSlow(Exception):
    """The client takes too long; the text says by which measure."""


class OnlyLineEnds(Exception):
    """The client sends line ends and nothing else."""


class Read(NamedTuple):
    """What came of reading a message: why none of it was kept ("": all of it was), and what is to be told of that."""

    refusal: Literal["", "too big", "no room", "fault"]
    why: str = ""


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

    def judged(self, now: float) -> TooSlow:
        """What is to be said of a client whose time was up at this moment."""
        if self._least and now < self._began + WHOLE_MESSAGE:
            return TooSlow(f"at least {self._least} octets a second are expected")
        return TooSlow(f"a message may take {WHOLE_MESSAGE:.0f} seconds")


async def read_message(
    stream: Stream, incoming: Incoming, *, limit: int, least_rate: int, heard: Callable[[], None]
) -> Read:
    """Read up to the final dot; all of it is in `incoming` then, unless it was refused (see Submitted).

    Only CRLF.CRLF ends a message (RFC 5321 4.1.1.4): whatever else a careless relay might take for the end is part of
    it, so that no second message can hide in the first. What is refused is read to its end all the same, since the
    client hears nothing before. `heard` is called with each piece that comes. Raises TooSlow, TooLong, OnlyLineEnds,
    ConnectionResetError.
    """
    loop = asyncio.get_running_loop()
    pace = Pace(least_rate, loop.time())
    try:
        async with asyncio.timeout_at(pace.until(0)) as bound:
            return await _read(stream, incoming, limit, lambda: _go_on(incoming, pace, bound, heard))
    except TimeoutError:
        raise pace.judged(loop.time()) from None


def _go_on(incoming: Incoming, pace: Pace, bound: asyncio.Timeout, heard: Callable[[], None]) -> None:
    bound.reschedule(pace.until(incoming.size))
    heard()


async def _read(stream: Stream, incoming: Incoming, limit: int, go_on: Callable[[], None]) -> Read:
    # The line end of DATA itself may be the CRLF before the final dot: then the message is empty.
    piece = await _start_of_message(stream)
    found = await _kept(incoming, piece, Read(""), limit)
    done = piece.endswith(END)
    while not done:
        try:
            piece = await stream.readuntil(END)
            done = True
        except asyncio.LimitOverrunError as more:
            piece = await stream.readexactly(more.consumed)
        found = await _kept(incoming, piece, found, limit)
        if found.refusal and not done and incoming.size > 2 * (limit + len(END)):
            raise TooLong
        go_on()
    return found


async def _kept(incoming: Incoming, piece: bytes, found: Read, limit: int) -> Read:
    """Keep one more piece, unless all is refused; give what has come of it so far."""
    try:
        await incoming.add(piece)
    except NoRoom as error:
        found = Read("no room", f"{incoming.size} octets: {error}")
    except OSError as error:
        _LOG.error("a message that comes in cannot be written down: %s", clean(str(error), 200))
        found = Read("fault", f"{incoming.size} octets")
    if incoming.size > limit + len(END):
        incoming.close()
        found = Read("too big", f"{incoming.size} octets")
    return found


async def _start_of_message(stream: Stream) -> bytes:
    """Read, after the CRLF of DATA, until what was read is the end or can be no part of it."""
    start = bytearray(b"\r\n")
    while not start.endswith(END) and start.endswith(_STARTS_OF_END):
        start += await stream.readexactly(1)
        if len(start) % 1024 == 0:
            await asyncio.sleep(0)
        if len(start) > MAX_LINE:
            raise OnlyLineEnds
    return bytes(start)
