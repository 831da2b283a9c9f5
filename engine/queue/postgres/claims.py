"""What is to be sent: whose turn it is, who answers for it, what came of it, and what is to be told of that."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial

from engine.base.text import clean
from engine.model.claim import NONE_TAKEN, Claim, DueSite, Late, Relaying, Settlement, Shares, Untold
from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue import contract
from engine.queue.bounds import DROPS_AT_ONCE, TIDY_EVERY
from engine.queue.content import BLOCK, Content
from engine.queue.expiry import Place
from engine.queue.postgres import (
    attempts,
    bodies,
    idle,
    notices,
    notifications,
    overdue,
    rules,
    schedule,
    settlements,
)
from engine.queue.postgres.database import Database, Role, read, written
from engine.queue.postgres.expiry import Expired
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction

log = logging.getLogger(__name__)


class Claims(Role, contract.Claims):
    """What mail needs to move is found by index, however big the queue.

    `ruling` is held by who carries out hold rules: one at a time.
    """

    def __init__(self, database: Database, ruling: asyncio.Lock) -> None:
        super().__init__(database)
        self._ruling = ruling
        self._doubtful = schedule.DoubtfulSites()
        self._expired = Expired()
        self._settle = partial(settlements.settle, terms=database.terms)
        self._tidied = 0.0
        self._has_more_to_do = False

    # -- whose turn it is -----------------------------------------------------------------------------------------

    @read
    async def due_destinations(self, snapshot: Snapshot, limit: int, without: Collection[str] = ()) -> list[str]:
        return await schedule.due_destinations(snapshot, limit, without)

    @read
    async def due_sites(
        self, snapshot: Snapshot, limit: int, without: Collection[str] = (), *, with_doubtful: bool = True
    ) -> list[DueSite]:
        return await schedule.due_sites(snapshot, limit, without, with_doubtful)

    @read
    async def doubtful_sites(
        self, snapshot: Snapshot, without: Collection[str] = (), taken: Shares = NONE_TAKEN
    ) -> list[DueSite]:
        return await self._doubtful.of(snapshot, without, taken)

    @read
    async def proves(self, snapshot: Snapshot, site: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM destination WHERE site = $1 AND took_at > 0)"
        return bool(await snapshot.value(query, storable(site)))

    async def next_due(self, after: float = 0.0) -> float | None:
        now = self.database.clock.now()
        due = await self.database.ask(lambda s: schedule.next_due(s, after))
        if not (resting := self._doubtful.resting):
            return due
        again = max(now, after) + resting
        return again if due is None else min(due, again)

    # -- who answers for it ---------------------------------------------------------------------------------------

    @written
    async def claim(
        self, tx: Transaction, destination: str, limit: int, relayer: int, recipients: int = 50
    ) -> list[Claim]:
        return await attempts.claim(tx, destination, self._most(limit), relayer, recipients)

    @written
    async def claim_site(
        self, tx: Transaction, site: str, limit: int, relayer: int, recipients: int = 50
    ) -> list[Claim]:
        return await attempts.claim_site(tx, site, self._most(limit), relayer, recipients)

    def _most(self, limit: int) -> int:
        """None once the lease has ended: nothing of it could be sent, and peers would be dialled for it in vain."""
        return limit if self.database.node.left else 0

    @read
    async def content(self, snapshot: Snapshot, message: int) -> bytes:
        return await bodies.whole(snapshot, message)

    async def open_content(self, message: int) -> Content:
        body, ask = bodies.Body(message, BLOCK), self.database.ask
        first = await ask(body.first)
        return Content(body.size, first, lambda: ask(body.next))

    async def settle(self, settlement: Settlement) -> None:
        await self.database.do_together(self._settle, settlement)

    async def put_back(self, claims: Sequence[Claim], why: str) -> None:
        log.debug("%d messages put back: %s", len(claims), clean(why))
        await self.database.do(lambda tx: attempts.put_back(tx, claims))

    @written
    async def set_aside(self, tx: Transaction, claim: Claim, why: str) -> None:
        await attempts.set_aside(tx, claim, why)

    @read
    async def relaying(self, snapshot: Snapshot) -> tuple[Relaying, ...]:
        return await attempts.relaying(snapshot, self.database.node.epoch)

    def holds(self, claim: Claim) -> bool:
        return self.database.node.holds(claim.epoch)

    @written
    async def put_back_orphans(self, tx: Transaction, orphans: Sequence[Relaying], why: str) -> int:
        return await attempts.put_back_orphans(tx, orphans, why)

    # -- what has come due without being sent ---------------------------------------------------------------------

    async def overdue(self, limit: int, *, expire: bool = True) -> list[Claim]:
        database, expired = self.database, self._expired if expire else None
        # A part of each, so that no check takes long: the next one goes on.
        self._has_more_to_do = False
        self._has_more_to_do = await database.do(overdue.carry_out_drops) == DROPS_AT_ONCE
        if not self._ruling.locked():  # else who holds it does the same
            async with self._ruling:
                has_rules_to_do = await database.do(rules.step) is not None
            self._has_more_to_do = self._has_more_to_do or has_rules_to_do
        now = database.clock.now()
        is_tidy = self._tidied <= now < self._tidied + TIDY_EVERY

        async def carry_out(tx: Transaction) -> tuple[list[Claim], Place | None, bool]:
            claims, place = await overdue.overdue(tx, limit, expired)
            return claims, place, not is_tidy and await idle.forget_idle(tx)

        claims, place, all_forgotten = await database.do(carry_out)
        if all_forgotten:  # else the next call goes on: what is idle cannot grow faster than it is forgotten
            self._tidied = now
        if place is not None:
            self._expired.go_on_from(place)
        return claims

    @property
    def has_more_to_do(self) -> bool:
        return self._has_more_to_do

    # -- what is to be told ---------------------------------------------------------------------------------------

    @read
    async def untold(self, snapshot: Snapshot, limit: int) -> list[Untold]:
        return await notifications.untold(snapshot, limit)

    async def tell(self, untold: Untold, notice: NewMessage | None, *, gives_back: bool = False) -> bool:
        database = self.database
        return await database.do(
            lambda tx: notifications.tell(tx, untold, notice, database.terms, gives_back=gives_back),
            weight=_weight(notice),
        )

    @written
    async def tell_later(self, tx: Transaction, message: int, seconds: float) -> None:
        await notifications.tell_later(tx, message, seconds)

    @read
    async def late(self, snapshot: Snapshot, limit: int) -> list[Late]:
        return await notices.late(snapshot, limit)

    async def notify(self, late: Late, notice: NewMessage | None, *events: Event) -> bool:
        database = self.database
        return await database.do(
            lambda tx: notices.notify(tx, late, notice, events, database.terms), weight=_weight(notice)
        )


def _weight(notice: NewMessage | None) -> int:
    return len(notice.content) if notice is not None else 0
