"""Notices: who is told what of which recipient, by what the sender asked for (RFC 3461), and the words for it."""

import asyncio
import logging
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.delivery import dsn
from engine.dkim.result import CannotSign, Sign, unsigned
from engine.model.claim import Action, Claim, ClaimedEntry, Late, Untold
from engine.model.event import Event
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from engine.queue.errors import QueueBroken, QueueError

log = logging.getLogger(__name__)

NOT_WANTED = "the sender asked not to be told"  # what the event of such a failure says
_WRITTEN_AT_ONCE = 20  # recipients; a notification of more is written in a thread


class OfBounce(Struct, frozen=True):
    """What a bounce that cannot be delivered calls for: for each entry who is told, and those for the postmaster."""

    said: dict[int, str]
    for_postmaster: frozenset[int]


class Notices:
    """Builds the notifications that settlements and delays call for. `postmaster` "": nobody has the last word.

    `content_returned`: bytes; a larger message goes back as its headers, whatever was asked for. `sign` gives the
    signatures of what is written: it is mail of the relay's own name.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        hostname: str,
        postmaster: str = "",
        content_returned: int = dsn.WHOLE_RETURNED,
        sign: Sign = unsigned,
    ) -> None:
        self._queue = queue
        self._hostname = hostname
        self._postmaster = postmaster
        self._content_returned = content_returned
        self._sign = sign

    @staticmethod
    def action(entry: ClaimedEntry, outcome: Outcome) -> Action | None:
        """What the sender is to be told of an outcome in the end; None: nothing.

        RFC 3461 5.2.2: of success, where it was asked for and the peer does not offer DSN: such a peer will tell
        nobody, so that "relayed" is the last that can be said. Where it does, the wish went on with the message.
        """
        if outcome.kind == "permanent" and entry.dsn.include("FAILURE"):
            return "failed"
        if outcome.kind == "delivered" and entry.dsn.include("SUCCESS") and not outcome.peer_notifies:
            return "relayed"
        return None

    async def of_bounce(self, claim: Claim, failed: Sequence[ClaimedEntry]) -> OfBounce:
        """What comes of recipients that a message with the null sender has failed for.

        Its sender is told nothing (RFC 5321 6.1); the postmaster is, once, and not of what was to be told to them.
        Raises QueueError.
        """
        said = {entry.number: self._kept_from_postmaster(entry) for entry in failed}
        for_postmaster = frozenset(number for number, kept in said.items() if not kept)
        why = f"{self._postmaster} is told"
        if for_postmaster and dsn.tells_of_bounce(await self._content(claim.message)):
            for_postmaster, why = frozenset(), "it tells of another one already, and nobody else is told"
        return OfBounce({number: kept or why for number, kept in said.items()}, for_postmaster)

    async def of_settled(self, untold: Untold, now: float) -> bool:
        """Tell a sender, or the postmaster, of settled recipients; False when they have been told.

        The content goes back whole with one notification at the most, whatever fails after that. Raises QueueError,
        CannotSign.
        """
        recipients = [
            dsn.Recipient(
                recipient=entry.recipient, outcome=entry.outcome, action=entry.action, orcpt=entry.orcpt, at=entry.at
            )
            for entry in untold.entries
        ]
        is_bounce = untold.sender == dsn.NULL_SENDER
        if not recipients or (is_bounce and not self._postmaster):  # who was to be told when it failed is set no more
            log.warning("message %d: nobody is told of %d recipients", untold.message, len(recipients))
            return await self._queue.claims.tell(untold, None)
        content = await self._content(untold.message)
        may_go_back = not untold.given_back and (is_bounce or len(content) <= self._content_returned)
        original = dsn.Original(
            message=untold.message,
            sender=untold.sender,
            arrived=untold.arrived,
            content=content,
            smtputf8=untold.smtputf8,
            ret=untold.ret if may_go_back else "HDRS",
            envid=untold.envid,
        )
        write = self._to_postmaster if is_bounce else self._to_sender
        # Many recipients take a moment to write down, in which the mail of others is to move on.
        is_long = len(recipients) > _WRITTEN_AT_ONCE
        notice = (
            await asyncio.to_thread(write, original, recipients, now) if is_long else write(original, recipients, now)
        )
        failed = any(each.action == "failed" for each in recipients)
        return await self._queue.claims.tell(untold, self._signed(notice), gives_back=may_go_back and failed)

    def _kept_from_postmaster(self, entry: ClaimedEntry) -> str:
        """Why the postmaster is not told of a bounce to this recipient, or ""."""
        if entry.given_up:
            return "it was given up by order, and nobody is told"
        if not entry.dsn.include("FAILURE"):
            return f"{NOT_WANTED} (NOTIFY={entry.dsn.notify})"
        if not self._postmaster:
            return "dsn.postmaster is not set, so nobody is told"
        if entry.recipient.casefold() == self._postmaster.casefold():
            return f"it was to the postmaster {self._postmaster}, and nobody else is told"
        return ""

    def _to_postmaster(self, original: dsn.Original, recipients: Sequence[dsn.Recipient], now: float) -> NewMessage:
        to = self._postmaster
        try:
            return dsn.double_bounce(original, recipients, postmaster=to, hostname=self._hostname, now=now)
        except Exception:
            log.exception("message %d: the postmaster cannot be told of it as they should", original.message)
            bare, plain = replace(original, content=b""), [dsn.plainly(each) for each in recipients]
            return dsn.double_bounce(bare, plain, postmaster=to, hostname=self._hostname, now=now)

    async def of_delay(self, late: Late, now: float) -> bool:
        """Tell a sender of a delay, once; False when there was nothing to tell any more, or it waits to be signed.

        Raises QueueError.
        """
        recipients = [
            dsn.Recipient(
                recipient=entry.recipient,
                outcome=entry.last or Outcome.transient("no attempt could be made yet"),
                action="delayed",
                orcpt=entry.dsn.orcpt,
                until=entry.expires,
            )
            for entry in late.entries
        ]
        original = dsn.Original(
            message=late.message, sender=late.sender, arrived=late.arrived, content=b"", envid=late.envid
        )
        try:
            content = await self._content(late.message)
            notice = self._signed(self._to_sender(replace(original, content=content), recipients, now))
        except QueueError:
            raise
        except CannotSign as error:
            log.warning("message %d: its notice of delay waits to be signed: %s", late.message, error)
            return False
        except Exception:
            # Nothing is lost with a notice of delay; trying to write it again would fail again at every check.
            log.exception("message %d: its sender cannot be told of the delay", late.message)
            notice = None
        events = [
            Event(
                at=now,
                kind="notified",
                message=late.message,
                entry=entry.number,
                sender=late.sender,
                recipient=entry.recipient,
                destination=entry.destination,
                outcome=entry.last,
                text="the sender is told of the delay",
            )
            for entry in late.entries
            if notice is not None
        ]
        return await self._queue.claims.notify(late, notice, *events)

    def _to_sender(self, original: dsn.Original, recipients: Sequence[dsn.Recipient], now: float) -> NewMessage | None:
        try:
            return dsn.notification(original, recipients, hostname=self._hostname, now=now)
        except Exception:
            # Telling must not fail for the words in it: tell the sender in the plainest words instead.
            log.exception("message %d: its notification cannot be written as it should", original.message)
            plain = [dsn.plainly(each) for each in recipients]
            bare = replace(original, envid="", content=b"")
            return dsn.notification(bare, plain, hostname=self._hostname, now=now)

    def _signed(self, notice: NewMessage | None) -> NewMessage | None:
        """What was written, with its signatures on top. Raises CannotSign."""
        if notice is None:
            return None
        signature = self._sign(notice.content)
        return replace(notice, content=signature.fields + notice.content, remark=signature.remark)

    async def _content(self, message: int) -> bytes:
        """What a message holds, or b"" where that cannot be read. Raises QueueBroken."""
        try:
            return await self._queue.claims.content(message)
        except QueueBroken:
            raise
        except QueueError as error:
            log.warning("message %d: a notification goes without its headers: %s", message, error)
            return b""
