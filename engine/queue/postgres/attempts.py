"""Claims: entries are marked as being relayed before anything is dialled, and given back when nothing was.

Whatever is claimed when the engine starts was interrupted, and goes back to what it was.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.model.claim import Claim, ClaimedEntry, Relaying
from engine.model.destination import RELAY
from engine.model.event import ENGINE
from engine.model.outcome import Outcome
from engine.queue.attempts import damaged, interrupted, why_not_tried
from engine.queue.bounds import SKIPPED_AT_MOST
from engine.queue.columns import outcome_of
from engine.queue.postgres.rows import pairs, storable
from engine.queue.postgres.transaction import Row, Snapshot, Transaction
from engine.queue.rows import dsn_of

_MORE_TIMES = 4  # so many times as many entries are read at each further look

# Of `destination AS d`: neither it nor the whole relay is suspended. $2 is the time.
_OPEN = f"NOT EXISTS (SELECT 1 FROM suspension WHERE destination IN ('{RELAY}', d.name) AND until > $2)"
_DUE = (
    "SELECT {kind}, due, message, number FROM entry WHERE destination = {name} AND state = 'waiting' AND due <= {now} "
    "{which} ORDER BY due, message, number LIMIT {limit} {skip}"
)
_FRESH = "AND attempts = 0"
# Where there are other nodes, what one of them is about to claim is passed over, and not waited for.
_SKIP = {False: "", True: "FOR UPDATE SKIP LOCKED"}
# The first due of several destinations, of those never tried and of all; by whether there are other nodes.
_FIRST_DUE = {
    has_others: "SELECT d.name, e.* FROM unnest($1::text[]) AS d (name) CROSS JOIN LATERAL "
    "(SELECT * FROM ({fresh}) f UNION ALL SELECT * FROM ({every}) a) e".format(
        fresh=_DUE.format(kind="true AS is_fresh", name="d.name", now="$2", which=_FRESH, limit="$3", skip=skip),
        every=_DUE.format(kind="false AS is_fresh", name="d.name", now="$2", which="", limit="$3", skip=skip),
    )
    for has_others, skip in _SKIP.items()
}
_MORE_DUE = {
    (is_fresh, has_others): _DUE.format(
        kind=str(is_fresh).lower(),
        name="$1",
        now="$2",
        which=f"AND (due, message, number) > ($4, $5, $6) {_FRESH if is_fresh else ''}",
        limit="$3",
        skip=skip,
    )
    for is_fresh in (False, True)
    for has_others, skip in _SKIP.items()
}
# What a claim says of its entries, of `entry AS e` and `message AS m`: as `claims_of` takes it, with the attempt.
CLAIMED = (
    "e.message, e.destination, e.number, e.recipient, e.attempts, e.last, e.notify, e.orcpt, e.expires, "
    "m.sender, m.size, m.arrived, m.eight_bit, m.smtputf8, m.ret, m.envid"
)
# The number of an attempt only grows: it serves as the count of turns.
_CLAIM = (
    "WITH taken AS (UPDATE entry e SET state = 'relaying', epoch = $5 "
    "FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS k (message, number, place) "
    "WHERE e.message = k.message AND e.number = k.number AND e.state = 'waiting' RETURNING e.*, k.place), "
    "started AS (INSERT INTO attempt (message, entry, relayer, started, node) "
    "SELECT message, number, $3, $4, $6 FROM taken ORDER BY place RETURNING id, message, entry), "
    "turned AS (INSERT INTO change (destination, turn, touched) SELECT e.destination, 2 * max(s.id), $4 "
    "FROM taken e JOIN started s ON s.message = e.message AND s.entry = e.number GROUP BY e.destination) "
    f"SELECT {CLAIMED}, s.id FROM taken e JOIN started s ON s.message = e.message AND s.entry = e.number "
    "JOIN message m ON m.number = e.message ORDER BY e.place"
)

# Back to what it was before the claim: an order that stands keeps it held.
_GIVEN_BACK = "state = CASE WHEN ordered IS NULL THEN 'waiting' ELSE 'held' END, giving_up = false"
# Those of some claimed entries whose very claim still stands: they may have been settled, and claimed anew.
_RUNNING = (
    "SELECT k.message, k.number, k.attempt FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[]) "
    "AS k (message, number, attempt, epoch) WHERE CASE WHEN k.attempt = 0 THEN EXISTS (SELECT 1 FROM entry e "
    "WHERE e.message = k.message AND e.number = k.number AND e.giving_up AND e.epoch = k.epoch) "
    "ELSE EXISTS (SELECT 1 FROM attempt a WHERE a.id = k.attempt AND a.ended IS NULL AND NOT a.interrupted) END"
)


async def claim(tx: Transaction, destination: str, limit: int, relayer: int, recipients: int) -> list[Claim]:
    """Claim up to `limit` messages of a destination, with up to `recipients` entries of each; see Claims.claim."""
    name = await tx.value(
        f"SELECT name FROM destination d WHERE name = $1 AND blocked_until <= $2 AND {_OPEN}",
        storable(destination),
        tx.now,
    )
    return await _claim(tx, [name], limit, relayer, recipients) if name is not None else []


async def claim_site(tx: Transaction, site: str, limit: int, relayer: int, recipients: int) -> list[Claim]:
    """Claim up to `limit` messages of a site's destinations, that served longest ago first."""
    rows = await tx.fetch(
        f"SELECT name FROM destination d WHERE site = $1 AND ready IS NOT NULL AND ready <= $2 AND {_OPEN} "
        "ORDER BY turn, name LIMIT $3",
        storable(site),
        tx.now,
        max(0, limit),
    )
    return await _claim(tx, [name for (name,) in rows], limit, relayer, recipients)


async def put_back(tx: Transaction, claims: Sequence[Claim]) -> None:
    """Give claims back untried, and strike their attempts from the record."""
    await tx.execute(
        f"WITH running AS ({_RUNNING}), struck AS (DELETE FROM attempt a USING running r WHERE a.id = r.attempt) "
        f"UPDATE entry e SET {_GIVEN_BACK} FROM running r "
        "WHERE e.message = r.message AND e.number = r.number AND e.state = 'relaying'",
        *_keys(claims),
    )


async def set_aside(tx: Transaction, claim: Claim, why: str) -> None:
    """Hold what cannot be read. A drop that was ordered stands; a bounce would fail for the same reason again."""
    rows = await tx.fetch(_RUNNING, *_keys([claim]))
    running = {number for _, number, _ in rows}
    await tx.execute(
        "UPDATE entry SET state = 'held', giving_up = false WHERE message = $1 AND number = ANY($2::int[])",
        claim.message,
        list(running),
    )
    await tx.execute(
        "UPDATE entry SET ordered = 'hold', ordered_by = $3, note = $4, operation = NULL, "
        "prior = '', prior_by = '', prior_note = '', rule = NULL "
        "WHERE message = $1 AND number = ANY($2::int[]) AND ordered IS DISTINCT FROM 'drop'",
        claim.message,
        list(running),
        ENGINE,
        storable(why),
    )
    await tx.execute("DELETE FROM attempt WHERE id = ANY($1::bigint[])", [attempt for _, _, attempt in rows])
    for entry in claim.entries:
        if entry.number in running:
            tx.record(damaged(tx.now, claim, entry, why))


async def recover(tx: Transaction) -> int:
    """Put back what is being relayed by no node that lives, and say so of each attempt; give how many there were.

    What such a node has claimed stands: it can commit nothing more.
    """
    rows = await tx.fetch(
        "SELECT e.message, e.number, m.sender, e.recipient, e.destination, e.giving_up, a.node "
        "FROM entry e JOIN message m ON m.number = e.message "
        "LEFT JOIN attempt a ON a.message = e.message AND a.entry = e.number AND a.ended IS NULL AND NOT a.interrupted "
        "WHERE e.state = 'relaying' AND e.epoch <> ALL(ARRAY(SELECT epoch FROM node WHERE NOT is_lost)) "
        "ORDER BY e.message, e.number FOR UPDATE OF e SKIP LOCKED"
    )
    await _interrupt(tx, [(*row[:5], _how_it_ended(tx, row[6], is_returned=row[5])) for row in rows])
    return len(rows)


def _how_it_ended(tx: Transaction, node: str | None, *, is_returned: bool) -> str:
    whose = "the engine ended" if node == tx.node else f"node {node} was lost" if node else "the node was lost"
    return f"{whose} before it was returned" if is_returned else f"{whose} while it was being relayed"


async def relaying(s: Snapshot, epoch: int) -> tuple[Relaying, ...]:
    """All that is being relayed, or returned, under an epoch; by the index of what is, and by message."""
    rows = await s.fetch(
        "SELECT e.message, e.number, coalesce(a.id, 0), coalesce(a.relayer, 0) FROM entry e "
        "LEFT JOIN attempt a ON a.message = e.message AND a.entry = e.number AND a.ended IS NULL AND NOT a.interrupted "
        "WHERE e.state = 'relaying' AND e.epoch = $1 ORDER BY e.message, e.number",
        epoch,
    )
    return tuple(Relaying(*row) for row in rows)


async def put_back_orphans(tx: Transaction, orphans: Sequence[Relaying], why: str) -> int:
    """Put back those of some entries that are still being relayed by the same attempt; give how many there were.

    Nobody knows how far their attempt came: it is told as interrupted, so that the peer may have them.
    """
    rows = await tx.fetch(
        "SELECT e.message, e.number, m.sender, e.recipient, e.destination "
        "FROM unnest($1::bigint[], $2::int[], $3::bigint[]) WITH ORDINALITY AS k (message, number, attempt, place) "
        "JOIN entry e ON e.message = k.message AND e.number = k.number AND e.state = 'relaying' "
        "JOIN message m ON m.number = e.message "
        "WHERE k.attempt = coalesce((SELECT a.id FROM attempt a WHERE a.message = e.message AND a.entry = e.number "
        "AND a.ended IS NULL AND NOT a.interrupted LIMIT 1), 0) ORDER BY k.place",
        [orphan.message for orphan in orphans],
        [orphan.entry for orphan in orphans],
        [orphan.attempt for orphan in orphans],
    )
    await _interrupt(tx, [(*row, why) for row in rows])
    return len(rows)


async def how_they_fared(s: Snapshot, destinations: Collection[str]) -> dict[str, Outcome | None]:
    """Why mail to these destinations could not be tried."""
    fared: dict[str, Outcome | None] = dict.fromkeys(destinations)
    if fared:
        query = "SELECT name, last, blocked_why FROM destination WHERE name = ANY($1::text[])"
        fared |= {name: why_not_tried(*row) for name, *row in await s.fetch(query, list(fared))}
    return fared


def claims_of(
    rows: Iterable[Row],
    epoch: int,
    given_up: Mapping[tuple[int, str], Mapping[int, str]] | None = None,
    fared: Mapping[str, Outcome | None] | None = None,
) -> list[Claim]:
    """Claims of rows of CLAIMED, each with the number of its attempt behind that, made under an epoch.

    `given_up` says by whose order an entry leaves, and why; `fared` how its destination did.
    """
    entries: dict[tuple[int, str], list[ClaimedEntry]] = {}
    messages: dict[int, Row] = {}
    for row in rows:
        message, destination, number, recipient, before, last, notify, orcpt, expires, *of_message, attempt = row
        messages[message] = of_message
        entries.setdefault((message, destination), []).append(
            ClaimedEntry(
                number=number,
                recipient=recipient,
                attempt=attempt,
                attempts=before,
                expires=expires,
                given_up=(given_up or {}).get((message, destination), {}).get(number, ""),
                last=outcome_of(last) or (fared or {}).get(destination),
                dsn=dsn_of(notify, orcpt),
            )
        )
    names = ("sender", "size", "arrived", "eight_bit", "smtputf8", "ret", "envid")
    fields = {message: dict(zip(names, row, strict=True)) for message, row in messages.items()}
    return [
        Claim(message=message, destination=destination, entries=tuple(found), epoch=epoch, **fields[message])
        for (message, destination), found in entries.items()
    ]


# -- the choice of what is due --------------------------------------------------------------------------------------


async def _claim(tx: Transaction, names: Sequence[str], limit: int, relayer: int, recipients: int) -> list[Claim]:
    """Claim from destinations that are open, in this order."""
    if limit <= 0 or not names:
        return []
    # Enough of each where a message has one entry in it, and all have as much that is due.
    size = limit // len(names) + 8
    due: dict[tuple[str, bool], list[_Due]] = {}
    for name, is_fresh, *entry in await tx.fetch(_FIRST_DUE[tx.has_others], names, tx.now, size):
        due.setdefault((name, is_fresh), []).append(_Due(*entry))
    ids: list[tuple[int, int]] = []
    for name in names:
        if limit <= 0:
            break
        taken: dict[int, list[int]] = {}
        # Half of the messages are for those never tried, so that retries do not keep them waiting. The one in the
        # middle, which is all there is in claims of one, goes to either by lot: whatever is counted may grow by two
        # from claim to claim.
        middle = limit % 2 * random.getrandbits(1)
        for is_fresh, most in ((True, limit // 2 + middle), (False, limit)):
            look = _Look(name, is_fresh, sorted(due.get((name, is_fresh), ())), size)
            await _take(tx, taken, look, most, recipients)
        limit -= len(taken)
        ids += ((message, number) for message, numbers in taken.items() for number in numbers)
    if not ids:
        return []
    return claims_of(await tx.fetch(_CLAIM, *pairs(ids), relayer, tx.now, tx.epoch, tx.node), tx.epoch)


class _Due(NamedTuple):
    """An entry that is due, in the order in which they are claimed."""

    due: float
    message: int
    number: int


class _Look(NamedTuple):
    """The first due of a destination, of all or of those never tried; as many as `size` where there may be more."""

    destination: str
    is_fresh: bool
    entries: list[_Due]
    size: int


async def _take(tx: Transaction, taken: dict[int, list[int]], look: _Look, limit: int, recipients: int) -> None:
    """Add due entries until there are `limit` messages, the first due first.

    Passes over SKIPPED_AT_MOST that are too many of their message, to bound the cost.
    """
    left = limit * recipients + SKIPPED_AT_MOST
    entries, size = look.entries, look.size
    while limit > 0:
        for entry in entries:
            if entry.message not in taken and len(taken) >= limit:
                return
            numbers = taken.setdefault(entry.message, [])
            if entry.number not in numbers and len(numbers) < recipients:
                numbers.append(entry.number)
        left -= len(entries)
        if len(entries) < size or left <= 0:
            return
        size = min(_MORE_TIMES * size, left)
        rows = await tx.fetch(_MORE_DUE[look.is_fresh, tx.has_others], look.destination, tx.now, size, *entries[-1])
        entries = [_Due(*entry) for _, *entry in rows]


# -- giving back ----------------------------------------------------------------------------------------------------


async def _interrupt(tx: Transaction, rows: Sequence[Row]) -> None:
    """Give entries back, and say of their attempts that nobody knows how they ended.

    Of each: message, number, sender, recipient, destination, and how that came.
    """
    if not rows:
        return
    await tx.execute(
        "WITH k AS (SELECT * FROM unnest($1::bigint[], $2::int[]) AS k (message, number)), "
        "told AS (UPDATE attempt a SET interrupted = true FROM k "
        "WHERE a.message = k.message AND a.entry = k.number AND a.ended IS NULL) "
        f"UPDATE entry e SET {_GIVEN_BACK} FROM k "
        "WHERE e.message = k.message AND e.number = k.number AND e.state = 'relaying'",
        *pairs((row[0], row[1]) for row in rows),
    )
    tx.record(*(interrupted(tx.now, *row) for row in rows))


def _keys(claims: Sequence[Claim]) -> tuple[list[int], ...]:
    """The entries of claims, with their attempts and epochs, as four parameters."""
    entries = [(claim, entry) for claim in claims for entry in claim.entries]
    messages, numbers = pairs((claim.message, entry.number) for claim, entry in entries)
    return messages, numbers, [entry.attempt for _, entry in entries], [claim.epoch for claim, _ in entries]
