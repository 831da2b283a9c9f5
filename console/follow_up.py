"""What becomes of the last order of this console, told in the status line as it develops and when it is over."""

import asyncio

from console.format import safe
from console.widgets.line import Piece
from engine.control.client import Client, EngineUnreachable, Refused
from engine.control.views import FollowUpView
from engine.model.verbs import Result

READ_FOR = 3.0  # seconds in which the result itself can be read before it makes room for what became of it
PATIENCE = 5.0  # seconds a look may take; the next one is made with the next snapshot


class FollowUp:
    """Follows one order, the last one given here, by the number that its result had.

    The engine ends it, and bounds it in time. `text`: what was last said of the order, its result at first.
    """

    def __init__(self) -> None:
        self.text = ""
        self._number = 0
        self._from = 0.0

    def begin(self, result: Result, text: str, now: float) -> None:
        """Follow what this action did, and no longer what one before it did. `text` is how its result was said.

        What can be undone is followed from when it cannot be any more, all else once its result can have been read.
        """
        self.text = text
        self._number = result.follow
        self._from = result.undo_until or now + READ_FOR

    async def look(self, client: Client, now: float) -> Piece | None:
        """What is to be said of the order now; None without news. Never raises: a lost engine is told of elsewhere."""
        number = self._number
        if not number or now < self._from:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                seen = await client.operation(number)
        except Refused:  # the engine was started anew, and knows nothing of it
            self._end(number)
            return None
        except (EngineUnreachable, TimeoutError):
            return None
        if number != self._number:  # another order was given meanwhile
            return None
        said = _said(seen)
        if seen.over and said[0] == self.text:
            self._end(number)
        return said if said[0] != self.text and _is_news(seen) else None

    def _end(self, number: int) -> None:
        if self._number == number:
            self._number = 0


def _is_news(seen: FollowUpView) -> bool:
    """Whether it says more than the result did: something has come of it."""
    done = (seen.delivered, seen.deferred, seen.returned, seen.dropped, seen.gone, seen.blocked)
    return seen.over or any(done)


def _said(seen: FollowUpView) -> Piece:
    unsettled = seen.relaying + seen.held + seen.suspended + seen.later + seen.waiting
    failed = seen.deferred or seen.blocked or seen.gone or (seen.returned and seen.verb != "bounce")
    if not seen.over or (unsettled and not failed):
        return f"◷ {safe(seen.text)}", ""
    return (f"▲ {safe(seen.text)}", "warn") if failed else (f"✓ {safe(seen.text)}", "good")
