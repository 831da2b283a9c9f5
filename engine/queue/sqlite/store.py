"""The default store: one SQLite file in the spool, one writer, and readers that never wait for it."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.base.clock import Clock
from engine.base.text import clean
from engine.model.claim import NONE_TAKEN, ROOM, Claim, DueSite, Late, Relaying, Room, Settlement, Shares, Untold
from engine.model.destination import Destination, HeldBack, Mark, Override, Suspension, Totals
from engine.model.event import ENGINE, Event
from engine.model.filter import Filter
from engine.model.message import Message, NewMessage, Selection, Window
from engine.model.order import Changed, Ending, Fate, HoldRule, Operation, Touched, TouchedEntry
from engine.model.reason import Reason
from engine.queue.content import BLOCK, Content
from engine.queue.contract import KeptPolicy, KnownLogin, Queue, QueueDamaged, QueueError
from engine.queue.sqlite import (
    aftermath,
    arrivals,
    bearing,
    bodies,
    destinations,
    endings,
    filesystems,
    listing,
    logins,
    notices,
    operations,
    orders,
    overriding,
    policies,
    reasons,
    rules,
    schedule,
    settlements,
    standing,
    telling,
    timing,
    who_reads,
)
from engine.queue.sqlite import claims as claiming
from engine.queue.sqlite.connection import SEE_TO_IT
from engine.queue.sqlite.expiry import Expired, Place
from engine.queue.sqlite.readers import Readers
from engine.queue.sqlite.writer import Transaction, Writer

T = TypeVar("T")

FILE = "queue.db"
GIVE_UP_AFTER = 5 * 86400.0  # seconds; RFC 5321 4.5.4.1: at least 4-5 days
TIDY_EVERY = 3600.0  # seconds between two looks for what is idle
STOP_SECONDS = 2.0  # for an operator's orders that are under way when the store is closed; then they are cut short

_log = logging.getLogger(__name__)


class SqliteQueue(Queue):
    """The durable queue in `directory`/queue.db (mode 0600), made by `open` where there is none.

    `give_up_after` is in seconds from arrival, or gives them for a destination, in any thread; so is `delay_notice`,
    after which the sender is told (0: never), and `gather`, for which what failed is gathered. Of the events the newest
    `events_kept` are kept. Only one engine may have it open: see that the spool is locked before. `unsafe_on` says
    which kind of file system a folder is on, where the store is not to be opened on it, and "" where it is.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        give_up_after: float | Callable[[str], float] = GIVE_UP_AFTER,
        delay_notice: float = 0.0,
        gather: float = 0.0,
        events_kept: int = 100_000,
        unsafe_on: Callable[[Path], str] = filesystems.unsafe,
    ) -> None:
        self.on_events: Callable[[Sequence[Event]], None] = lambda _: None
        self._path = directory / FILE
        self._unsafe_on = unsafe_on
        self._clock = clock
        patience = give_up_after if callable(give_up_after) else (lambda _: give_up_after)
        self._terms = arrivals.Terms(patience, delay_notice, gather)
        self._events_kept = events_kept
        self._due_counts = destinations.DueCounts()
        self._doubtful = schedule.DoubtfulSites()
        self._held_back = standing.HeldBackAnswers()
        self._reasons = reasons.ReasonAnswers()
        self._tidied = 0.0
        self._expired = Expired()
        self._has_more_to_do = False
        self._is_damage_old = False  # what is known to be unreadable is to be looked at again
        self._stopping = False
        self._ruling = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._writer_or_none: Writer | None = None
        self._readers_or_none: Readers | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> int:
        if kind := self._unsafe_on(self._path.parent):
            raise filesystems.refusal(self._path.parent, kind)
        writer = Writer(self._path, self._clock, self._deliver, self._events_kept)
        await writer.open()
        self._writer_or_none = writer
        self._readers_or_none = Readers(self._path, self._damage_read, lambda: writer.damage.mended)
        try:
            interrupted = await writer.do(_recover)
            await self._readers.ask(listing.newest_message)  # a read-only connection is open from now on: see close()
        except BaseException as error:
            await self.close()
            if isinstance(error, QueueDamaged):
                raise QueueDamaged(f"{error}; {SEE_TO_IT}") from error
            raise
        return interrupted

    async def close(self) -> None:
        if self._writer_or_none is None or self._readers_or_none is None:
            return
        writer, readers = self._writer_or_none, self._readers_or_none
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        self._stopping = True  # what still runs ends between two of its transactions, which are short
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        await writer.close()
        await readers.close()
        # The last connection to close copies the log into the file, unless it may only read. After a failed write
        # nothing more is to be written.
        parts: list[Writer | Readers] = [writer, readers] if writer.broken else [readers, writer]
        for part in parts:
            part.disconnect()
        self._writer_or_none = self._readers_or_none = None

    @property
    def broken(self) -> str:
        return self._writer_or_none.broken if self._writer_or_none is not None else ""

    @property
    def trouble(self) -> str:
        if self._writer_or_none is None or self._readers_or_none is None:
            return ""
        writer, readers = self._writer_or_none, self._readers_or_none
        return writer.damage.trouble or writer.fault or who_reads.told(writer.stuck_log, self._path, readers.seconds)

    @property
    def has_more_to_do(self) -> bool:
        return self._has_more_to_do

    @property
    def spare(self) -> int:
        return self._writer_or_none.spare if self._writer_or_none is not None else 0

    # -- in -------------------------------------------------------------------------------------------------------

    async def enqueue(self, message: NewMessage) -> int:
        return await self._writer.do(lambda tx: arrivals.enqueue(tx, message, self._terms), weight=len(message.content))

    async def forget_key(self, key: str) -> None:
        await self._writer.do(lambda tx: arrivals.forget_key(tx, key))

    # -- choose and claim -----------------------------------------------------------------------------------------

    async def due_destinations(self, limit: int, without: Collection[str] = ()) -> list[str]:
        now, left_out = self._clock.now(), tuple(without)
        return await self._readers.ask(lambda c: schedule.due_destinations(c, limit, left_out, now=now))

    async def due_sites(
        self, limit: int, without: Collection[str] = (), *, with_doubtful: bool = True
    ) -> list[DueSite]:
        now, left_out = self._clock.now(), tuple(without)
        ask = partial(schedule.due_sites, limit=limit, without=left_out, with_doubtful=with_doubtful, now=now)
        return await self._beside_damage(ask, partial(ask, singly=True))

    async def doubtful_sites(self, without: Collection[str] = (), taken: Shares = NONE_TAKEN) -> list[DueSite]:
        now, left_out = self._clock.now(), tuple(without)
        return await self._beside_damage(
            lambda c: self._doubtful.of(c, left_out, taken, now=now),
            lambda c: schedule.doubtful_sites_singly(c, left_out, taken, now=now),
        )

    async def proves(self, site: str) -> bool:
        return await self._readers.ask(lambda c: standing.proves(c, site))

    async def next_due(self, after: float = 0.0) -> float | None:
        now = self._clock.now()
        ask = partial(schedule.next_due, after=after, now=now)
        due = await self._beside_damage(ask, partial(ask, singly=True))
        if not (resting := self._doubtful.resting):
            return due
        again = max(now, after) + resting
        return again if due is None else min(due, again)

    async def claim(self, destination: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        return await self._writer.do(lambda tx: claiming.claim(tx, destination, limit, relayer, recipients))

    async def claim_site(self, site: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        return await self._writer.do(lambda tx: claiming.claim_site(tx, site, limit, relayer, recipients))

    async def content(self, message: int) -> bytes:
        return await self._readers.ask(lambda c: listing.content(c, message))

    async def open_content(self, message: int) -> Content:
        body = bodies.Body(message, BLOCK)
        first = await self._readers.ask(body.first)
        return Content(body.size, first, lambda: self._readers.ask(body.next))

    async def settle(self, settlement: Settlement) -> None:
        await self._writer.do(lambda tx: settlements.settle(tx, settlement, self._terms))

    async def untold(self, limit: int) -> list[Untold]:
        now = self._clock.now()
        ask = partial(telling.untold, limit=limit, now=now)
        return await self._beside_damage(ask, partial(ask, singly=True))

    async def tell(self, untold: Untold, notice: NewMessage | None, *, gives_back: bool = False) -> bool:
        weight = len(notice.content) if notice is not None else 0
        return await self._writer.do(
            lambda tx: telling.tell(tx, untold, notice, self._terms, gives_back=gives_back), weight=weight
        )

    async def tell_later(self, message: int, seconds: float) -> None:
        await self._writer.do(lambda tx: telling.tell_later(tx, message, seconds))

    async def put_back(self, claims: Sequence[Claim], why: str) -> None:
        _log.debug("%d messages put back: %s", len(claims), clean(why))
        await self._writer.do(lambda tx: claiming.put_back(tx, claims))

    async def set_aside(self, claim: Claim, why: str) -> None:
        await self._writer.do(lambda tx: claiming.set_aside(tx, claim, why))

    async def relaying(self) -> tuple[Relaying, ...]:
        return await self._readers.ask(claiming.relaying)

    async def put_back_orphans(self, orphans: Sequence[Relaying], why: str) -> int:
        return await self._writer.do(lambda tx: claiming.put_back_orphans(tx, orphans, why))

    async def note_destination(
        self, destination: str, exchanges: Sequence[str] | None, site: str | None = None
    ) -> None:
        await self._writer.do(lambda tx: standing.note_destination(tx, destination, exchanges, site))

    async def block(self, destination: str, until: float, why: str, *, failed: bool = True) -> None:
        await self._writer.do(lambda tx: standing.block(tx, destination, until, why, failed=failed))

    async def block_site(self, site: str, until: float, why: str, *, failed: bool = True) -> None:
        await self._writer.do(lambda tx: standing.block_site(tx, site, until, why, failed=failed))

    async def unblock_site(self, site: str) -> None:
        await self._writer.do(lambda tx: standing.unblock_site(tx, site))

    async def unblock(self, destinations: Sequence[str]) -> None:
        await self._writer.do(lambda tx: standing.unblock(tx, destinations))

    async def overdue(self, limit: int, *, expire: bool = True) -> list[Claim]:
        expired = self._expired if expire else None
        if self._is_damage_old:  # not when that was found: nothing is waited for between a claim and its caller
            await self._writer.do(lambda tx: tx.damage.forget())
            self._is_damage_old = False
        # A part of each, so that no check takes long: the next one goes on.
        self._has_more_to_do = False
        with suppress(QueueDamaged):  # which is told; what is overdue is another matter
            self._has_more_to_do = await self._writer.do(claiming.carry_out_drops) == claiming.DROPS_AT_ONCE
        if not self._ruling.locked():  # else who holds it does the same
            async with self._ruling:
                self._has_more_to_do |= await self._writer.do(rules.step) is not None
        now = self._clock.now()
        if self._tidied <= now < self._tidied + TIDY_EVERY:
            claims, place = await self._writer.do(lambda tx: _overdue(tx, limit, expired))
        else:
            (claims, place), all_forgotten = await self._writer.do(
                lambda tx: (_overdue(tx, limit, expired), standing.forget_idle(tx))
            )
            self._is_damage_old = True
            if all_forgotten:  # else the next call goes on: what is idle cannot grow faster than it is forgotten
                self._tidied = now
        if place is not None:
            self._expired.go_on_from(place)
        return claims

    async def late(self, limit: int) -> list[Late]:
        now = self._clock.now()
        return await self._readers.ask(lambda c: notices.late(c, limit, now=now))

    async def notify(self, late: Late, notice: NewMessage | None, *events: Event) -> bool:
        weight = len(notice.content) if notice is not None else 0
        return await self._writer.do(lambda tx: notices.notify(tx, late, notice, events, self._terms), weight=weight)

    # -- the clock ------------------------------------------------------------------------------------------------

    async def newest_event_at(self) -> float:
        return await self._readers.ask(timing.newest_event_at)

    async def clock_was_set(self, told: str, longest_wait: Callable[[str], float], longest_block: float) -> int:
        async def put_right() -> int:
            await self._writer.do(lambda tx: timing.put_standing_right(tx, longest_block))
            changed = 0
            after: tuple[int, int] | None = (0, 0)
            while after is not None:
                step = await self._writer.do(
                    partial(timing.put_entries_right, after=after, terms=self._terms, longest_wait=longest_wait)
                )
                changed, after = changed + step.changed, step.after
            await self._writer.do(lambda tx: timing.tell(tx, told, changed))
            return changed

        return await self._to_its_end(put_right())

    # -- see ------------------------------------------------------------------------------------------------------

    async def totals(self, room: Room = ROOM) -> Totals:
        now = self._clock.now()
        return await self._see(lambda c: destinations.totals(c, self._due_counts, room, now=now))

    async def window(self, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        now = self._clock.now()
        return await self._see(lambda c: listing.window(c, filter, sort, offset, limit, now=now))

    async def message(self, number: int) -> Message:
        now = self._clock.now()
        return await self._see(lambda c: listing.message(c, number, now=now))

    async def destinations(self, match: str, sort: str, offset: int, limit: int) -> tuple[int, tuple[Destination, ...]]:
        now, counts = self._clock.now(), self._due_counts
        return await self._see(lambda c: destinations.destinations(c, match, sort, offset, limit, counts, now=now))

    async def destination(self, name: str) -> Destination:
        now = self._clock.now()
        return await self._see(lambda c: destinations.destination(c, name, self._due_counts, now=now))

    async def select(self, filter: Filter, newest: int | None = None) -> Selection:
        now = self._clock.now()
        return await self._see(lambda c: listing.select(c, filter, newest, now=now))

    async def lets_go(self, ending: Ending, name: str) -> Selection:
        now = self._clock.now()
        return await self._see(lambda c: endings.lets_go(c, ending, name, now=now))

    async def reasons(self, limit: int) -> tuple[Reason, ...]:
        now = self._clock.now()
        return await self._see(lambda c: self._reasons.of(c, limit, now=now))

    # -- the operator's orders ------------------------------------------------------------------------------------

    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self._order(orders.retry(by, self._clock.now()), filter, newest, touched)

    async def hold(self, filter: Filter, by: str, reason: str, newest: int | None = None) -> Changed:
        return await self._order(orders.hold(by, reason), filter, newest)

    async def release(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self._order(orders.release(by, self._clock.now()), filter, newest, touched)

    async def give_up(
        self,
        order: Literal["bounce", "drop"],
        filter: Filter,
        by: str,
        reason: str,
        wait: float,
        newest: int | None = None,
    ) -> Changed:
        return await self._order(orders.give_up(order, by, reason, wait, self._clock.now()), filter, newest)

    async def undo(self, operation: int, by: str) -> Changed:
        return await self._to_its_end(self._orders.undo(operation, by))

    async def operation(self, id: int) -> Operation | None:
        return await self._see(lambda c: operations.operation(c, id))

    async def fates(self, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
        now = self._clock.now()
        return await self._see(lambda c: aftermath.fates(c, since, entries, now=now))

    async def suspend(self, suspension: Suspension) -> None:
        await self._writer.do(lambda tx: standing.suspend(tx, suspension))

    async def resume(self, destination: str, by: str) -> bool:
        return await self._writer.do(lambda tx: standing.resume(tx, destination, by))

    async def suspensions(self) -> tuple[Suspension, ...]:
        now = self._clock.now()
        return await self._see(lambda c: bearing.suspensions(c, now))

    # -- what comes ------------------------------------------------------------------------------------------------

    async def add_rule(self, filter: Filter, until: float, by: str, reason: str) -> HoldRule:
        async def add() -> HoldRule:
            rule = await self._writer.do(lambda tx: rules.add(tx, filter, until, by, reason))
            await self._carry_out_rules()
            return next((one for one in await self.rules() if one.id == rule.id), rule)

        return await self._to_its_end(add())

    async def end_rule(self, id: int, by: str) -> int | None:
        async def end() -> int | None:
            async with self._ruling:
                if not await self._writer.do(lambda tx: rules.end(tx, id, by)):
                    return None
                count = 0
                while (step := await self._writer.do(rules.let_go)) is not None:
                    count += step.recipients if step.id == id else 0
                    self._go_on()
                return count

        return await self._to_its_end(end())

    async def rules(self) -> tuple[HoldRule, ...]:
        now = self._clock.now()
        return await self._see(lambda c: rules.rules(c, now))

    async def rules_on(self, recipient: str, destination: str) -> tuple[HoldRule, ...]:
        now = self._clock.now()
        return await self._see(lambda c: rules.rules_on(c, recipient, destination, now))

    async def set_override(self, override: Override) -> int:
        await self._writer.do(lambda tx: overriding.set_override(tx, override))
        return await self._to_its_end(self._orders.make_due_in(override.destination, "override", override.by))

    async def end_override(self, destination: str, by: str) -> Override | None:
        ended = await self._writer.do(lambda tx: overriding.end_override(tx, destination, by))
        if ended is not None:
            await self._to_its_end(self._orders.make_due_in(destination, "end-override", by))
        return ended

    async def override(self, destination: str) -> Override | None:
        now = self._clock.now()
        return await self._readers.ask(lambda c: overriding.override(c, destination, now))

    async def overrides(self) -> tuple[Override, ...]:
        now = self._clock.now()
        return await self._see(lambda c: overriding.overrides(c, now))

    async def _carry_out_rules(self) -> None:
        """Hold what rules have yet to hold, and let go what those that are over held, in bounded transactions."""
        async with self._ruling:
            while await self._writer.do(rules.step) is not None:
                self._go_on()

    def _go_on(self) -> None:
        """Between two transactions of what takes several. Raises QueueError where the store is about to be closed."""
        if self._stopping:
            raise QueueError("the engine stops")

    # -- bad MX hosts ---------------------------------------------------------------------------------------------

    async def marks(self) -> tuple[Mark, ...]:
        return await self._readers.ask(standing.marks)

    async def save_mark(self, mark: Mark) -> None:
        await self._writer.do(lambda tx: standing.save_mark(tx, mark))

    async def remove_mark(self, host: str, by: str, touched: Touched | None = None) -> int:
        if by == ENGINE:
            await self._writer.do(lambda tx: standing.remove_mark(tx, host, by))
            return 0
        return await self._to_its_end(self._let_go(host, by, touched or Touched()))

    async def _let_go(self, host: str, by: str, touched: Touched) -> int:
        """Make due what waits for a host, then remove its mark: what goes first would else be counted by nobody."""
        if not await self._readers.ask(lambda c: standing.has_mark(c, host)):
            return 0
        count = await self._orders.make_due(host, by, touched)
        await self._writer.do(lambda tx: standing.remove_mark(tx, host, by, count))
        return count

    async def forget_marks(self, hosts: Sequence[str]) -> None:
        await self._writer.do(lambda tx: standing.forget_marks(tx, hosts))

    async def held_back_counts(self) -> dict[str, int]:
        now = self._clock.now()
        return await self._see(lambda c: self._held_back.counts(c, now=now))

    async def held_back(self, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
        named = tuple(hosts)
        now = self._clock.now()
        return await self._see(lambda c: self._held_back.of(c, named, now=now))

    # -- MTA-STS policies -----------------------------------------------------------------------------------------

    async def sts_policy(self, domain: str) -> KeptPolicy | None:
        now = self._clock.now()
        return await self._readers.ask(lambda c: policies.load(c, domain, now=now))

    async def save_sts_policy(self, policy: KeptPolicy) -> None:
        await self._writer.do(lambda tx: policies.save(tx, policy))

    # -- logins ---------------------------------------------------------------------------------------------------

    async def remember_login(self, login: str, address: str) -> None:
        await self._writer.do(lambda tx: logins.remember(tx, login, address))

    async def known_logins(self) -> tuple[KnownLogin, ...]:
        return await self._readers.ask(logins.known)

    # -- events ---------------------------------------------------------------------------------------------------

    async def record(self, *events: Event) -> None:
        await self._writer.do(lambda tx: tx.record(*events))

    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        return await self._see(
            lambda c: listing.events(c, before=before, after=after, message=message, match=match, limit=limit)
        )

    # -- within ---------------------------------------------------------------------------------------------------

    @property
    def _writer(self) -> Writer:
        if self._writer_or_none is None:
            raise QueueError("the queue is not open")
        return self._writer_or_none

    @property
    def _readers(self) -> Readers:
        if self._readers_or_none is None:
            raise QueueError("the queue is not open")
        return self._readers_or_none

    @property
    def _orders(self) -> orders.Orders:
        return orders.Orders(self._writer, self._readers, self._clock, self._go_on)

    async def _see(self, question: Callable[..., T]) -> T:
        return await self._readers.ask(question, console=True)

    async def _order(
        self, order: orders.Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        return await self._to_its_end(self._orders.carry_out(order, filter, newest, touched))

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what takes several transactions in a task of its own: who asked may go, the order is still carried out."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def _deliver(self, events: Sequence[Event]) -> None:
        self.on_events(events)

    async def _beside_damage(
        self, question: Callable[[sqlite3.Connection], T], singly: Callable[[sqlite3.Connection], T]
    ) -> T:
        """Ask, and where that meets a damaged page, which is told, ask for what can be read beside it."""
        try:
            return await self._readers.ask(question)
        except QueueDamaged:
            return await self._readers.ask(singly)

    async def _damage_read(self, error: BaseException) -> bool:
        self._writer.damage.met(error)
        try:
            return await self._writer.mended()
        except QueueError:
            return False


def _recover(tx: Transaction) -> int:
    orders.end_unfinished(tx)
    return claiming.recover(tx)


def _overdue(tx: Transaction, limit: int, expired: Expired | None) -> tuple[list[Claim], Place | None]:
    standing.end_suspensions(tx)
    overriding.end_overrides(tx)
    return claiming.overdue(tx, limit, expired)
