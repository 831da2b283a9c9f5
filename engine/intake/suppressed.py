"""Recipients that are on the suppression list: refused as their mail comes in, whichever way it comes.

By SMTP whoever brings it is told at once; of a message that is there whole the sender is, as of any failure, and it
goes to the others.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping

from msgspec.structs import replace

from engine.base.address import Address
from engine.base.clock import Clock
from engine.base.text import clean
from engine.intake.reply import Reply
from engine.model.message import NewMessage
from engine.model.suppression import Suppressed, key_of
from engine.queue.contract import Suppression
from engine.queue.errors import QueueError
from engine.settings.settings import Settings

log = logging.getLogger(__name__)

LOOK_UP = 5.0  # seconds for the list to be asked; then nobody is refused
LEFT_ALONE = 10.0  # seconds for which a list that could not be asked is not asked again


class Refusing:
    """Says which recipients are refused, by the settings and the list in the store (None: there is none).

    A list that cannot be read refuses nobody: then their mail is tried, and fails as it did. Mail without a sender is
    not refused: it tells what became of other mail, and nobody could be told of it in turn.
    """

    def __init__(self, store: Suppression | None, settings: Settings, clock: Clock) -> None:
        self._store = store if settings.suppression.enabled else None
        self._spared = settings.own_postmasters
        self._clock = clock
        self._again = 0.0  # when the list is asked again, on the monotonic clock

    @property
    def is_on(self) -> bool:
        """Whether anybody is."""
        return self._store is not None

    async def reply(self, sender: Address, recipient: Address) -> Reply | None:
        """What is answered to a recipient, as it is queued, that is refused; None: it is taken."""
        if not sender.domain:
            return None
        found = await self._of((str(recipient),))
        return next((Reply(550, "5.1.1", one.words) for one in found.values()), None)

    async def sift(self, message: NewMessage) -> NewMessage:
        """The message, with what became already of those of its recipients that are on the list."""
        if not message.sender:
            return message
        found = await self._of(message.recipients)
        if not found:
            return message
        listed = (found.get(key_of(recipient)) for recipient in message.recipients)
        return replace(message, refused=tuple(one.outcome if one is not None else None for one in listed))

    async def _of(self, recipients: Collection[str]) -> Mapping[str, Suppressed]:
        if self._store is None or self._clock.monotonic() < self._again:
            return {}
        asked = [recipient for recipient in recipients if key_of(recipient) not in self._spared]
        if not asked:
            return {}
        try:
            async with asyncio.timeout(LOOK_UP):
                return await self._store.of(asked)
        except (QueueError, TimeoutError) as error:
            self._again = self._clock.monotonic() + LEFT_ALONE
            why = clean(str(error)) or f"no answer within {LOOK_UP:g} s"
            log.warning("the suppression list cannot be asked, and nobody is refused by it meanwhile: %s", why)
            return {}
