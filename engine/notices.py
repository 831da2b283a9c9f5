"""Notices: who is told what of which recipient, by what the sender asked for (RFC 3461), and the words for it."""

import logging
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine import dsn
from engine.events import Event
from engine.outcome import Outcome
from engine.queue.queue import Claim, ClaimedEntry, Late, NewMessage, Queue, QueueBroken, QueueError

log = logging.getLogger(__name__)

NOT_WANTED = "the sender asked not to be told"  # what the event of such a failure says


class OfBounce(Struct, frozen=True):
    """What a bounce that cannot be delivered calls for: a notice to the postmaster, and for each entry who is told."""

    notice: NewMessage | None
    said: dict[int, str]


class Notices:
    """Builds the notifications that settlements and delays call for. `postmaster` "": nobody has the last word."""

    def __init__(self, queue: Queue, *, hostname: str, postmaster: str = "") -> None:
        self._queue = queue
        self._hostname = hostname
        self._postmaster = postmaster

    @staticmethod
    def told(entry: ClaimedEntry, outcome: Outcome) -> dsn.Told | None:
        """What the sender is to be told of an outcome in the end; None: nothing.

        RFC 3461 5.2.2: of success, where it was asked for and the peer does not offer DSN: such a peer will tell
        nobody, so that "relayed" is the last that can be said. Where it does, the wish went on with the message.
        """
        if outcome.kind == "permanent" and entry.wishes.include("FAILURE"):
            return dsn.Told(recipient=entry.recipient, outcome=outcome, orcpt=entry.wishes.orcpt)
        if outcome.kind == "delivered" and entry.wishes.include("SUCCESS") and not outcome.peer_notifies:
            return dsn.Told(recipient=entry.recipient, outcome=outcome, action="relayed", orcpt=entry.wishes.orcpt)
        return None

    async def of_claim(self, claim: Claim, told: Sequence[dsn.Told], now: float) -> NewMessage | None:
        """The notification of what became of a claim's recipients."""
        original = dsn.Original(
            message=claim.message,
            sender=claim.sender,
            arrived=claim.arrived,
            content=b"",
            smtputf8=claim.smtputf8,
            ret=claim.ret,
            envid=claim.envid,
        )
        return await self._written(original, told, now)

    async def of_bounce(self, claim: Claim, failed: Sequence[tuple[ClaimedEntry, Outcome]], now: float) -> OfBounce:
        """What comes of recipients that a message with the null sender has failed for.

        Its sender is told nothing (RFC 5321 6.1); the postmaster is, once, and not of what was to be told to them.
        Raises QueueError.
        """
        said = {entry.number: self._kept_from_postmaster(entry) for entry, _ in failed}
        told = [
            dsn.Told(recipient=entry.recipient, outcome=outcome) for entry, outcome in failed if not said[entry.number]
        ]
        notice = None
        if told:
            content = await self._content(claim.message)
            if dsn.tells_of_bounce(content):
                why = "it tells of another one already, and nobody else is told"
            else:
                original = dsn.Original(
                    message=claim.message, sender="", arrived=claim.arrived, content=content, smtputf8=claim.smtputf8
                )
                notice, why = self._to_postmaster(original, told, now), f"{self._postmaster} is told"
            said = {number: kept or why for number, kept in said.items()}
        return OfBounce(notice, said)

    def _kept_from_postmaster(self, entry: ClaimedEntry) -> str:
        """Why the postmaster is not told of a bounce to this recipient, or ""."""
        if entry.given_up:
            return "it was given up by order, and nobody is told"
        if not entry.wishes.include("FAILURE"):
            return f"{NOT_WANTED} (NOTIFY={entry.wishes.notify})"
        if not self._postmaster:
            return "dsn.postmaster is not set, so nobody is told"
        if entry.recipient.casefold() == self._postmaster.casefold():
            return f"it was to the postmaster {self._postmaster}, and nobody else is told"
        return ""

    def _to_postmaster(self, original: dsn.Original, told: Sequence[dsn.Told], now: float) -> NewMessage:
        to = self._postmaster
        try:
            return dsn.double_bounce(original, told, postmaster=to, hostname=self._hostname, now=now)
        except Exception:
            log.exception("message %d: the postmaster cannot be told of it as they should", original.message)
            bare, plain = replace(original, content=b""), [dsn.plainly(each) for each in told]
            return dsn.double_bounce(bare, plain, postmaster=to, hostname=self._hostname, now=now)

    async def of_delay(self, late: Late, now: float) -> bool:
        """Tell a sender of a delay, once; False when there was nothing to tell any more. Raises QueueError."""
        told = [
            dsn.Told(
                recipient=entry.recipient,
                outcome=entry.last or Outcome.transient("no attempt could be made yet"),
                action="delayed",
                orcpt=entry.wishes.orcpt,
                until=entry.expires,
            )
            for entry in late.entries
        ]
        original = dsn.Original(
            message=late.message, sender=late.sender, arrived=late.arrived, content=b"", envid=late.envid
        )
        try:
            notice = await self._written(original, told, now)
        except QueueError:
            raise
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
        return await self._queue.notify(late, notice, *events)

    async def _written(self, original: dsn.Original, told: Sequence[dsn.Told], now: float) -> NewMessage | None:
        if original.sender == dsn.NULL_SENDER:
            return None
        content = await self._content(original.message)
        try:
            return dsn.notification(replace(original, content=content), told, hostname=self._hostname, now=now)
        except Exception:
            # Recording a result must not fail for the words in it: tell the sender in the plainest words instead.
            log.exception("message %d: its notification cannot be written as it should", original.message)
            plain = [dsn.plainly(each) for each in told]
            bare = replace(original, envid="", content=b"")
            return dsn.notification(bare, plain, hostname=self._hostname, now=now)

    async def _content(self, message: int) -> bytes:
        """What a message holds, or b"" where that cannot be read. Raises QueueBroken."""
        try:
            return await self._queue.content(message)
        except QueueBroken:
            raise
        except QueueError as error:
            log.warning("message %d: a notification goes without its headers: %s", message, error)
            return b""
