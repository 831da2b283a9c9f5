"""What stands until its time is over, by operators or by what was met; and the times themselves."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from engine.model.destination import Over, Override, Suspension
from engine.model.filter import Filter
from engine.model.order import HoldRule
from engine.model.outcome import Cause
from engine.queue import contract
from engine.queue.bounds import POLICIES_KEPT
from engine.queue.columns import storable
from engine.queue.contract import KeptPolicy
from engine.queue.sqlite import bearings, overrides, rules, suspensions, times
from engine.queue.sqlite.bulk import Bulk
from engine.queue.sqlite.database import Database, Role, Snapshot, read, seen, written
from engine.queue.sqlite.exchanges import know_destination, note_destination, unblock
from engine.queue.sqlite.writer import Transaction

_BLOCK = (
    "UPDATE destination SET blocked_until = :until, blocked_why = :why, blocked_cause = :cause, "
    "took_at = iif(:failed, 0, took_at), unreached_at = iif(:failed, :now, unreached_at)"
)


class Standing(Role, contract.Standing):
    """Rows by destination, or by the number of a rule; what a site is, its destinations are.

    `ruling` is held by who carries out hold rules: one at a time.
    """

    def __init__(self, database: Database, ruling: asyncio.Lock) -> None:
        super().__init__(database)
        self._ruling = ruling

    # -- how destinations stand -----------------------------------------------------------------------------------

    @written
    def note_destination(
        self, tx: Transaction, destination: str, exchanges: Sequence[str] | None, site: str | None = None
    ) -> None:
        note_destination(tx, destination, exchanges, site)

    @written
    def block(
        self, tx: Transaction, destination: str, until: float, why: str, *, failed: bool = True, cause: Cause = ""
    ) -> None:
        _block(tx, destination, until, why, failed=failed, cause=cause)

    @written
    def block_site(
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
        values = {**_blocking(tx, until, why, failed=failed, cause=cause), "site": storable(site)}
        tx.execute(f"{_BLOCK} WHERE site = :site AND ready IS NOT NULL", values)
        for destination in destinations:
            _block(tx, destination, until, why, failed=failed, cause=cause)

    @written
    def unblock_site(self, tx: Transaction, site: str) -> None:
        tx.execute(
            "UPDATE destination SET blocked_until = 0, blocked_why = '', blocked_cause = '', unreached_at = 0 "
            "WHERE site = ? AND ready IS NOT NULL AND blocked_until > 0",
            (storable(site),),
        )

    @written
    def unblock(self, tx: Transaction, destinations: Sequence[str]) -> None:
        unblock(tx, destinations)

    @read
    def sts_policy(self, snapshot: Snapshot, domain: str) -> KeptPolicy | None:
        row = snapshot.connection.execute(
            "SELECT domain, expires, policy FROM sts_policy WHERE domain = ? AND expires > ?",
            (storable(domain).lower(), snapshot.now),
        ).fetchone()
        return KeptPolicy(domain=row[0], expires=row[1], policy=row[2]) if row else None

    @written
    def save_sts_policy(self, tx: Transaction, policy: KeptPolicy) -> None:
        tx.execute(
            "INSERT OR REPLACE INTO sts_policy (domain, expires, policy) VALUES (?, ?, ?)",
            (storable(policy.domain).lower(), policy.expires, storable(policy.policy)),
        )
        tx.execute("DELETE FROM sts_policy WHERE expires <= ?", (tx.now,))
        tx.execute(
            "DELETE FROM sts_policy WHERE domain IN "
            "(SELECT domain FROM sts_policy ORDER BY expires DESC LIMIT -1 OFFSET ?)",
            (POLICIES_KEPT,),
        )

    # -- operators' word on destinations ---------------------------------------------------------------------------

    @written
    def suspend(self, tx: Transaction, suspension: Suspension) -> None:
        suspensions.suspend(tx, suspension)

    @written
    def resume(self, tx: Transaction, destination: str, by: str) -> bool:
        return suspensions.resume(tx, destination, by)

    @seen
    def suspensions(self, snapshot: Snapshot) -> tuple[Suspension, ...]:
        return bearings.suspensions(*snapshot)

    async def set_override(self, override: Override) -> int:
        await self._set_override(override)
        return await self._make_due_in(override.destination, "override", override.by)

    async def end_override(self, destination: str, by: str) -> Override | None:
        ended = await self._end_override(destination, by)
        if ended is not None:
            await self._make_due_in(destination, "end-override", by)
        return ended

    @read
    def override(self, snapshot: Snapshot, destination: str) -> Override | None:
        return overrides.override(snapshot.connection, destination, snapshot.now)

    @seen
    def overrides(self, snapshot: Snapshot) -> tuple[Override, ...]:
        return overrides.overrides(*snapshot)

    async def end_what_is_over(self) -> Over:
        if not await self._is_something_over():
            return Over()
        return await self.database.do(
            lambda tx: Over(
                suspended=suspensions.end_suspensions(tx),
                overridden=overrides.end_overrides(tx),
            )
        )

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

    @seen
    def rules(self, snapshot: Snapshot) -> tuple[HoldRule, ...]:
        return rules.rules(*snapshot)

    @seen
    def rules_on(self, snapshot: Snapshot, recipient: str, destination: str) -> tuple[HoldRule, ...]:
        return rules.rules_on(snapshot.connection, recipient, destination, snapshot.now)

    # -- the clock ------------------------------------------------------------------------------------------------

    @read
    def newest_event_at(self, snapshot: Snapshot) -> float:
        query = (
            "SELECT coalesce(max(at), 0.0) FROM event "
            "WHERE seq > (SELECT coalesce(max(seq), 0) FROM event WHERE kind = 'clock set')"
        )
        return float(snapshot.connection.execute(query).fetchone()[0])

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
    def _is_something_over(self, snapshot: Snapshot) -> bool:
        query = "SELECT 1 FROM suspension WHERE until <= :now UNION ALL SELECT 1 FROM override WHERE until <= :now"
        return snapshot.connection.execute(query, {"now": snapshot.now}).fetchone() is not None

    @written
    def _set_override(self, tx: Transaction, override: Override) -> None:
        overrides.set_override(tx, override)

    @written
    def _end_override(self, tx: Transaction, destination: str, by: str) -> Override | None:
        return overrides.end_override(tx, destination, by)


def _block(tx: Transaction, destination: str, until: float, why: str, *, failed: bool, cause: Cause) -> None:
    name = storable(destination).lower()
    know_destination(tx, name)
    values = {**_blocking(tx, until, why, failed=failed, cause=cause), "name": name}
    tx.execute(f"{_BLOCK} WHERE name = :name", values)


def _blocking(tx: Transaction, until: float, why: str, *, failed: bool, cause: Cause) -> dict[str, object]:
    return {"until": until, "why": storable(why), "failed": failed, "cause": cause, "now": tx.now}
