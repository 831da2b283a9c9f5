"""What mail comes in with, whatever the store: the terms on which it may wait, and what of an envelope can be kept."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.model.event import Detail, Event
from engine.model.message import NO_DSN_REQUEST, DsnRequest, NewMessage
from engine.model.outcome import Outcome
from engine.queue.errors import QueueError


class Terms(NamedTuple):
    """How long mail may wait: seconds until it is given up, by destination, and until its sender is told; 0: never.

    `gather` is how many seconds what is to be told of a message's recipients is gathered for one notification.
    """

    give_up_after: Callable[[str], float]
    delay_notice: float = 0.0
    gather: float = 0.0

    def notice_at(self, message: NewMessage, dsn: DsnRequest, now: float) -> float | None:
        """When the sender is told that a recipient of what comes now is late; None: never.

        RFC 3461 6: nobody is told of what has the null sender.
        """
        is_told = self.delay_notice > 0 and message.sender != "" and dsn.include("DELAY")
        return now + self.delay_notice if is_told else None


def destination_of(recipient: str) -> str:
    """The part after the last "@", lower case."""
    return recipient.rpartition("@")[2].lower()


def check_envelope(message: NewMessage) -> None:
    """Raises QueueError for an envelope that cannot be kept as it is."""
    if not message.recipients:
        raise QueueError("a message without recipients cannot be queued")
    if message.dsn and len(message.dsn) != len(message.recipients):
        raise QueueError("a message has as many DSN requests as recipients, or none")
    if message.refused and len(message.refused) != len(message.recipients):
        raise QueueError("a message has as many outcomes as recipients, or none")
    try:
        "".join((message.sender, *message.recipients)).encode()
    except UnicodeEncodeError as error:
        # To replace a character would make it another address.
        raise QueueError("an address of this message is not valid Unicode") from error


class Refused(NamedTuple):
    """A recipient that is not tried: its number, what it came to, and what was asked to be told of it."""

    number: int
    recipient: str
    outcome: Outcome
    dsn: DsnRequest
    is_told: bool

    def event(self, message: int, sender: str, now: float) -> Event:
        """The event that tells of it."""
        return Event(
            at=now,
            kind="returned" if self.is_told else "discarded",
            message=message,
            entry=self.number,
            sender=sender,
            recipient=self.recipient,
            destination=destination_of(self.recipient),
            outcome=self.outcome,
            text="" if self.is_told else "the sender asked not to be told, or there is none",
            detail=Detail(arrived=now),
        )


def refused(message: NewMessage) -> tuple[Refused, ...]:
    """The recipients of a message that are not to be tried."""
    everyone = message.dsn or [NO_DSN_REQUEST] * len(message.recipients)
    return (
        tuple(
            Refused(number, recipient, outcome, dsn, is_told=message.sender != "" and dsn.include("FAILURE"))
            for number, (recipient, outcome, dsn) in enumerate(
                zip(message.recipients, message.refused, everyone, strict=True), 1
            )
            if outcome is not None
        )
        if message.refused
        else ()
    )


def accepted(message: NewMessage, number: int, size: int, now: float) -> Iterator[Event]:
    """The events that tell of its arrival, one for each recipient. `size` is that of its content, in bytes."""
    for place, recipient in enumerate(message.recipients, 1):
        yield Event(
            at=now,
            kind="accepted",
            message=number,
            entry=place,
            sender=message.sender,
            recipient=recipient,
            destination=destination_of(recipient),
            text=f"{message.origin}; {message.remark}" if message.remark else message.origin,
            detail=Detail(
                arrived=now,
                size=size,
                message_id=message.message_id,
                recipients=len(message.recipients),
            ),
        )
