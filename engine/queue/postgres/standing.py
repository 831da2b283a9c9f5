"""What stands until its time is over, by operators or by what was met; and the times themselves."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from engine.model.destination import Over, Override, Suspension
from engine.model.filter import Filter
from engine.model.node import QUEUED, News
from engine.model.order import HoldRule
from engine.model.outcome import Cause
from engine.queue import contract
from engine.queue.bounds import POLICIES_KEPT
from engine.queue.contract import KeptPolicy
from engine.queue.postgres import bearings, overrides, rules, suspensions, times
from engine.queue.postgres.bulk import Bulk
from engine.queue.postgres.database import Database, Role, read, written
from engine.queue.postgres.exchanges import know_destinations, note_destination, unblock, unblock_site
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction


class Standing(Role, contract.Standing):
    """Rows by destination, or by the number of a rule; what a site is, its destinations are.

    `ruling` is held by who carries out hold rules: one at a time.
    """

    def __init__(self, database: Database, ruling: asyncio.Lock) -> None:
        super().__init__(database)
        self._ruling = ruling

    # -- how destinations stand -----------------------------------------------------------------------------------

    @written
    async def note_destination(
        self, tx: Transaction, destination: str, exchanges: Sequence[str] | None, site: str | None = None
    ) -> None:
        tx.in_the_end(partial(note_destination, tx, destination, exchanges, site))

    @written
    async def block(
        self, tx: Transaction, destination: str, until: float, why: str, *, failed: bool = True, cause: Cause = ""
    ) -> None:
        tx.in_the_end(partial(_block, tx, None, (destination,), until, why, failed=failed, cause=cause))

    @written
    async def block_site(
        self,
        tx: Transaction,
        site: str,
        until: float,
        why: str,
        destinations: Collection[str] = (),
        *,
        failed: bool = True,
        cause: Cause = "",
    ) -> None:
        block = partial(_block, tx, storable(site), destinations, until, why, failed=failed, cause=cause)
        tx.in_the_end(block)

    @written
    async def unblock_site(self, tx: Transaction, site: str) -> None:
        tx.in_the_end(partial(unblock_site, tx, site))
        tx.tell(QUEUED)

    @written
    async def unblock(self, tx: Transaction, destinations: Sequence[str]) -> None:
        tx.in_the_end(partial(unblock, tx, destinations))
        tx.tell(QUEUED)

    @read
    async def sts_policy(self, snapshot: Snapshot, domain: str) -> KeptPolicy | None:
        row = await snapshot.row(
            "SELECT domain, expires, policy FROM sts_policy WHERE domain = $1 AND expires > $2",
            storable(domain).lower(),
            snapshot.now,
        )
        return KeptPolicy(domain=row[0], expires=row[1], policy=row[2]) if row is not None else None

    @written
    async def save_sts_policy(self, tx: Transaction, policy: KeptPolicy) -> None:
        await tx.execute(
            "INSERT INTO sts_policy (domain, expires, policy) VALUES ($1, $2, $3) "
            "ON CONFLICT (domain) DO UPDATE SET expires = excluded.expires, policy = excluded.policy",
            storable(policy.domain).lower(),
            policy.expires,
            storable(policy.policy),
        )
        await tx.execute(
            "DELETE FROM sts_policy WHERE expires <= $1 "
            "OR domain IN (SELECT domain FROM sts_policy ORDER BY expires DESC OFFSET $2)",
            tx.now,
            POLICIES_KEPT,
        )

    # -- operators' word on destinations ---------------------------------------------------------------------------

    @written
    async def suspend(self, tx: Transaction, suspension: Suspension) -> None:
        await suspensions.suspend(tx, suspension)

    @written
    async def resume(self, tx: Transaction, destination: str, by: str) -> bool:
        tx.tell(News("resumed", storable(destination).lower()))
        return await suspensions.resume(tx, destination, by)

    @read
    async def suspensions(self, snapshot: Snapshot) -> tuple[Suspension, ...]:
        return await bearings.suspensions(snapshot, snapshot.now)

    async def set_override(self, override: Override) -> int:
        await self._set_override(override)
        return await self._make_due_in(override.destination, "override", override.by)

    async def end_override(self, destination: str, by: str) -> Override | None:
        ended = await self._end_override(destination, by)
        if ended is not None:
            await self._make_due_in(destination, "end-override", by)
        return ended

    @read
    async def override(self, snapshot: Snapshot, destination: str) -> Override | None:
        return await overrides.override(snapshot, destination)

    @read
    async def overrides(self, snapshot: Snapshot) -> tuple[Override, ...]:
        return await overrides.overrides(snapshot)

    async def end_what_is_over(self) -> Over:
        if not await self._is_something_over():
            return Over()
        return await self._end_what_is_over()

    # -- hold rules -----------------------------------------------------------------------------------------------

    async def add_rule(self, filter: Filter, until: float, by: str, note: str) -> HoldRule:
        async def add() -> HoldRule:
            rule = await self.database.do(lambda tx: rules.add(tx, filter, until, by, note))
            async with self._ruling:  # hold what it has yet to hold, and let go what those that are over held
                while await self.database.do(rules.step) is not None:
                    self.database.go_on()
            return next((known for known in await self.rules() if known.id == rule.id), rule)

        return await self.database.to_its_end(add())

    async def end_rule(self, id: int, by: str) -> int | None:
        async def end() -> int | None:
            async with self._ruling:
                if not await self.database.do(lambda tx: rules.end(tx, id, by)):
                    return None
                count = 0
                while (step := await self.database.do(rules.let_go)) is not None:
                    count += step.recipients if step.id == id else 0
                    self.database.go_on()
                return count

        return await self.database.to_its_end(end())

    @read
    async def rules(self, snapshot: Snapshot) -> tuple[HoldRule, ...]:
        return await rules.rules(snapshot)

    @read
    async def rules_on(self, snapshot: Snapshot, recipient: str, destination: str) -> tuple[HoldRule, ...]:
        return await rules.rules_on(snapshot, recipient, destination)

    # -- the clock ------------------------------------------------------------------------------------------------

    @read
    async def newest_event_at(self, snapshot: Snapshot) -> float:
        return float(
            await snapshot.value(
                "SELECT coalesce(max(at), 0.0) FROM event "
                "WHERE seq > (SELECT coalesce(max(seq), 0) FROM event WHERE kind = 'clock set')"
            )
        )

    async def clock_was_set(self, text: str, longest_wait: Callable[[str], float], longest_block: float) -> int:
        async def put_right() -> int:
            database = self.database
            await database.do(lambda tx: times.put_standing_right(tx, longest_block))
            changed = 0
            after: tuple[int, int] | None = (0, 0)
            while after is not None:
                step = await database.do(
                    partial(times.put_entries_right, after=after, terms=database.terms, longest_wait=longest_wait)
                )
                changed, after = changed + step.changed, step.after
            await database.do(lambda tx: times.tell(tx, text, changed))
            return changed

        return await self.database.to_its_end(put_right())

    # -- within ---------------------------------------------------------------------------------------------------

    async def _make_due_in(self, destination: str, verb: str, by: str) -> int:
        return await self.database.to_its_end(Bulk(self.database).make_due_in(destination, verb, by))

    @read
    async def _is_something_over(self, snapshot: Snapshot) -> bool:
        return bool(
            await snapshot.value(
                "SELECT EXISTS (SELECT 1 FROM suspension WHERE until <= $1) "
                "OR EXISTS (SELECT 1 FROM override WHERE until <= $1)",
                snapshot.now,
            )
        )

    @written
    async def _end_what_is_over(self, tx: Transaction) -> Over:
        over = Over(suspended=await suspensions.end_suspensions(tx), overridden=await overrides.end_overrides(tx))
        tx.tell(*(News("resumed", name) for name in over.suspended))
        tx.tell(*(News("redirected", name) for name in over.overridden))
        return over

    @written
    async def _set_override(self, tx: Transaction, override: Override) -> None:
        tx.tell(News("redirected", storable(override.destination).lower()))
        await overrides.set_override(tx, override)

    @written
    async def _end_override(self, tx: Transaction, destination: str, by: str) -> Override | None:
        tx.tell(News("redirected", storable(destination).lower()))
        return await overrides.end_override(tx, destination, by)


async def _block(
    tx: Transaction,
    site: str | None,
    destinations: Collection[str],
    until: float,
    why: str,
    *,
    failed: bool,
    cause: Cause,
) -> None:
    """Block these destinations, and all of a site for which something waits."""
    names = [storable(name).lower() for name in destinations]
    if names:
        await know_destinations(tx, names)
    await tx.execute(
        "UPDATE destination SET blocked_until = $1, blocked_why = $2, blocked_cause = $3, "
        "took_at = CASE WHEN $4::boolean THEN 0 ELSE took_at END, "
        "unreached_at = CASE WHEN $4 THEN $5::float8 ELSE unreached_at END "
        "WHERE name = ANY($6::text[]) OR (site = $7::text AND ready IS NOT NULL)",
        until,
        storable(why),
        cause,
        failed,
        tx.now,
        names,
        site,
    )
