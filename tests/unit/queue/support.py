"""What the tests of the queue share, whichever store it is: short ways to put mail in and through it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from engine.model.claim import Claim, EntryResult, Settlement
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Entry, NewMessage
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from tests.clock import FakeClock

ALL = Filter.all()
LATER = Outcome.of_reply(451, "4.2.1 try later", host="mx1.example.org", phase="RCPT")
DELIVERED = Outcome.of_reply(250, "2.0.0 ok")
CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


class Spool:
    """A queue that is open, its clock, and every event it handed on."""

    def __init__(self, queue: Queue, clock: FakeClock) -> None:
        self.queue = queue
        self.clock = clock
        self.events: list[Event] = []
        self.queue.on_events = self.events.extend

    async def add(self, *recipients: str, **fields: Any) -> int:
        """Queue a message and give its number."""
        return await self.queue.arrivals.enqueue(new_message(*recipients, **fields))

    async def claim(self, destination: str = "example.org", limit: int = 100) -> list[Claim]:
        return await self.queue.claims.claim(destination, limit, 1)

    async def settle(self, claim: Claim, outcome: Outcome, after: float | None = None) -> None:
        """Settle all entries of a claim alike; `after` seconds they are due again."""
        due = None if after is None else self.clock.now() + after
        results = tuple(
            EntryResult(number=entry.number, attempt=entry.attempt, outcome=outcome, due=due) for entry in claim.entries
        )
        await self.queue.claims.settle(Settlement(message=claim.message, results=results, epoch=claim.epoch))

    async def carry_out(self) -> int:
        """Have all carried out that is due by order, a part at a time; give how many checks that took."""
        await self.queue.claims.overdue(1)
        checks = 1
        while self.queue.claims.has_more_to_do:
            await self.queue.claims.overdue(1)
            checks += 1
        return checks

    async def entries(self, filter: str = "", sort: str = "id") -> tuple[Entry, ...]:
        return (await self.queue.listing.window(Filter.parse(filter), sort, 0, 1000)).rows

    async def entry(self, message: int, number: int = 1) -> Entry:
        (found,) = await self.entries(f"id={message}.{number}")
        return found

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


# Opens a queue in a folder, with a clock and settings of the store, and closes it in the end.
Opened = Callable[..., AbstractAsyncContextManager[Spool]]


def new_message(*recipients: str, **fields: Any) -> NewMessage:
    values: dict[str, Any] = {
        "sender": "ann@example.net",
        "recipients": recipients or ("bob@example.org",),
        "content": CONTENT,
        "origin": "test",
    }
    return NewMessage(**(values | fields))
