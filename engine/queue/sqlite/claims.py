"""What is to be sent: whose turn it is, who answers for it, what came of it, and what is to be told of that."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress

from engine.base.text import clean
from engine.model.claim import NONE_TAKEN, Claim, DueSite, Late, Relaying, Settlement, Shares, Untold
from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue import contract
from engine.queue.bounds import DROPS_AT_ONCE, TIDY_EVERY
from engine.queue.columns import storable
from engine.queue.content import BLOCK, Content
from engine.queue.errors import QueueDamaged
from engine.queue.sqlite import (
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
from engine.queue.sqlite.database import Database, Role, Snapshot, read, written
from engine.queue.sqlite.expiry import Expired
from engine.queue.sqlite.writer import Transaction

log = logging.getLogger(__name__)


class Claims(Role, contract.Claims):
    """What mail needs to move is found by index, however big the queue, and beside a damaged page.

    `ruling` is held by who carries out hold rules: one at a time.
    """

    def __init__(self, database: Database, ruling: asyncio.Lock) -> None:
        super().__init__(database)
        self._ruling = ruling
        self._doubtful = schedule.DoubtfulSites()
        self._expired = Expired()
        self._tidied = 0.0
        self._has_more_to_do = False
        self._is_damage_old = False  # what is known to be unreadable is to be looked at again

    # -- whose turn it is -----------------------------------------------------------------------------------------

    @read
    def due_destinations(self, snapshot: Snapshot, limit: int, without: Collection[str] = ()) -> list[str]:
        return schedule.due_destinations(snapshot.connection, limit, tuple(without), now=snapshot.now)

    async def due_sites(
        self, limit: int, without: Collection[str] = (), *, with_doubtful: bool = True
    ) -> list[DueSite]:
        left_out = tuple(without)
        return await self.database.ask_beside_damage(
            lambda s: schedule.due_sites(s.connection, limit, left_out, with_doubtful, now=s.now),
            lambda s: schedule.due_sites(s.connection, limit, left_out, with_doubtful, now=s.now, singly=True),
        )

    async def doubtful_sites(self, without: Collection[str] = (), taken: Shares = NONE_TAKEN) -> list[DueSite]:
        left_out = tuple(without)
        return await self.database.ask_beside_damage(
            lambda s: self._doubtful.of(s.connection, left_out, taken, now=s.now),
            lambda s: schedule.doubtful_sites_singly(s.connection, left_out, taken, now=s.now),
        )

    @read
    def proves(self, snapshot: Snapshot, site: str) -> bool:
        (found,) = snapshot.connection.execute(
            "SELECT EXISTS (SELECT 1 FROM destination INDEXED BY destination_took WHERE site = ? AND took_at > 0)",
            (storable(site),),
        ).fetchone()
        return bool(found)

    async def next_due(self, after: float = 0.0) -> float | None:
        now = self.database.clock.now()
        due = await self.database.ask_beside_damage(
            lambda s: schedule.next_due(s.connection, after, now=s.now),
            lambda s: schedule.next_due(s.connection, after, now=s.now, singly=True),
        )
        if not (resting := self._doubtful.resting):
            return due
        again = max(now, after) + resting
        return again if due is None else min(due, again)

    # -- who answers for it ---------------------------------------------------------------------------------------

    @written
    def claim(self, tx: Transaction, destination: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        return attempts.claim(tx, destination, limit, relayer, recipients)

    @written
    def claim_site(self, tx: Transaction, site: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        return attempts.claim_site(tx, site, limit, relayer, recipients)

    @read
    def content(self, snapshot: Snapshot, message: int) -> bytes:
        return bodies.whole(snapshot.connection, message)

    async def open_content(self, message: int) -> Content:
        body, ask = bodies.Body(message, BLOCK), self.database.ask
        first = await ask(lambda s: body.first(s.connection))
        return Content(body.size, first, lambda: ask(lambda s: body.next(s.connection)))

    @written
    def settle(self, tx: Transaction, settlement: Settlement) -> None:
        settlements.settle(tx, settlement, self.database.terms)

    async def put_back(self, claims: Sequence[Claim], why: str) -> None:
        log.debug("%d messages put back: %s", len(claims), clean(why))
        await self.database.do(lambda tx: attempts.put_back(tx, claims))

    @written
    def set_aside(self, tx: Transaction, claim: Claim, why: str) -> None:
        attempts.set_aside(tx, claim, why)

    def holds(self, claim: Claim) -> bool:
        return claim.epoch == 0  # a spool has one owner, for as long as it is open

    @read
    def relaying(self, snapshot: Snapshot) -> tuple[Relaying, ...]:
        return attempts.relaying(snapshot.connection)

    @written
    def put_back_orphans(self, tx: Transaction, orphans: Sequence[Relaying], why: str) -> int:
        return attempts.put_back_orphans(tx, orphans, why)

    # -- what has come due without being sent ---------------------------------------------------------------------

    async def overdue(self, limit: int, *, expire: bool = True) -> list[Claim]:
        database, expired = self.database, self._expired if expire else None
        if self._is_damage_old:  # not when that was found: nothing is waited for between a claim and its caller
            await database.do(lambda tx: tx.damage.forget())
            self._is_damage_old = False
        # A part of each, so that no check takes long: the next one goes on.
        self._has_more_to_do = False
        with suppress(QueueDamaged):  # which is told; what is overdue is another matter
            self._has_more_to_do = await database.do(overdue.carry_out_drops) == DROPS_AT_ONCE
        if not self._ruling.locked():  # else who holds it does the same
            async with self._ruling:
                self._has_more_to_do |= await database.do(rules.step) is not None
        now = database.clock.now()
        if self._tidied <= now < self._tidied + TIDY_EVERY:
            claims, place = await database.do(lambda tx: overdue.overdue(tx, limit, expired))
        else:
            (claims, place), all_forgotten = await database.do(
                lambda tx: (overdue.overdue(tx, limit, expired), idle.forget_idle(tx))
            )
            self._is_damage_old = True
            if all_forgotten:  # else the next call goes on: what is idle cannot grow faster than it is forgotten
                self._tidied = now
        if place is not None:
            self._expired.go_on_from(place)
        return claims

    @property
    def has_more_to_do(self) -> bool:
        return self._has_more_to_do

    # -- what is to be told ---------------------------------------------------------------------------------------

    async def untold(self, limit: int) -> list[Untold]:
        return await self.database.ask_beside_damage(
            lambda s: notifications.untold(s.connection, limit, now=s.now),
            lambda s: notifications.untold(s.connection, limit, now=s.now, singly=True),
        )

    async def tell(self, untold: Untold, notice: NewMessage | None, *, gives_back: bool = False) -> bool:
        database = self.database
        return await database.do(
            lambda tx: notifications.tell(tx, untold, notice, database.terms, gives_back=gives_back),
            weight=_weight(notice),
        )

    @written
    def tell_later(self, tx: Transaction, message: int, seconds: float) -> None:
        notifications.tell_later(tx, message, seconds)

    @read
    def late(self, snapshot: Snapshot, limit: int) -> list[Late]:
        return notices.late(snapshot.connection, limit, now=snapshot.now)

    async def notify(self, late: Late, notice: NewMessage | None, *events: Event) -> bool:
        database = self.database
        return await database.do(
            lambda tx: notices.notify(tx, late, notice, events, database.terms), weight=_weight(notice)
        )


def _weight(notice: NewMessage | None) -> int:
    return len(notice.content) if notice is not None else 0
