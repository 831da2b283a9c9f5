"""What is due: which destinations and sites may be served, in whose turn, and when there is next something to do."""

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.base.registrable import registrable
from engine.model.claim import NONE_TAKEN, DueSite, Shares
from engine.model.destination import RELAY
from engine.queue.bounds import DOUBTFUL_AT_ONCE, DOUBTFUL_SEEN, FEW, RESTS
from engine.queue.postgres import bearings
from engine.queue.postgres.destinations import TAKEN
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Row, Snapshot

# Seconds of the server for that: what took longer than to look up so many is not looked for again for RESTS times that.
COSTLY = 0.005

# Of `destination AS d`: due at $1, none of $2 (names, or sites), not suspended itself. NOT IN: whatever the plan, each
# is looked up in a table of those left out, where ALL would compare it with one after another.
_DUE_BUT = (
    "d.ready IS NOT NULL AND d.ready <= $1 AND {but} NOT IN (SELECT unnest($2::text[])) "
    "AND d.name NOT IN (SELECT destination FROM suspension WHERE until > $1)"
)
_DUE = _DUE_BUT.format(but="d.site")
_RELAY_IS_OPEN = f"NOT EXISTS (SELECT 1 FROM suspension WHERE destination = '{RELAY}' AND until > $1)"
# All that are due, where they are few. OFFSET 0: they are found first, whatever is asked of them, so that the planner
# has no reason to walk through all that wait for later in the order of their turns.
_THE_FEW = "(SELECT * FROM destination WHERE ready <= $1 OFFSET 0)"

_FIRST_KEY = (-(2**62), "")  # before all turns


class _Doubtful(NamedTuple):
    """A destination in doubt that is due, whose mail it has, and its place among those looked at."""

    turn: int
    name: str
    site: str
    message: int | None
    sender: str | None
    place: int


async def due_destinations(s: Snapshot, limit: int, without: Collection[str]) -> list[str]:
    """Destinations that may be served now, in order of their turn."""
    rows = await s.fetch(
        f"SELECT name FROM destination d WHERE {_DUE_BUT.format(but='d.name')} AND {_RELAY_IS_OPEN} "
        "ORDER BY turn, name LIMIT $3",
        s.now,
        _texts(without),
        max(0, limit),
    )
    return [name for (name,) in rows]


async def due_sites(s: Snapshot, limit: int, without: Collection[str], with_doubtful: bool = True) -> list[DueSite]:
    """Sites that may be served now, in order of the turns of their destinations; see Claims.due_sites."""
    if limit <= 0 or (is_few := await _is_few(s)) is None:
        return []
    find = _of_few if is_few else _in_turn
    found: dict[str, tuple[int, str, DueSite]] = {}
    for is_in_doubt in (False, True)[: 1 + with_doubtful]:
        for turn, name, site in await find(s, is_in_doubt, without, limit):
            if site not in found or found[site][:2] > (turn, name):
                found[site] = (turn, name, DueSite(site=site, destination=name, is_in_doubt=is_in_doubt))
    return [site for _, _, site in sorted(found.values(), key=lambda row: row[:2])][:limit]


class DoubtfulSites:
    """Finds sites in doubt, and keeps what took long to find: it is given again for RESTS times as long.

    Looking for them so takes a twentieth of a core at the most, however many there are: a flood of destinations would
    else be looked through at each check. Meanwhile who was found and left out once (he is served, or was found not to
    be due any more) is left out, and who comes anew waits; `resting` says when it is worth another check.
    """

    def __init__(self) -> None:
        self._kept: list[DueSite] = []
        self._until = 0.0  # on time.monotonic's clock

    @property
    def resting(self) -> float:
        """For how many more seconds what was found is given again; 0: for no more."""
        return max(0.0, self._until - time.monotonic())

    async def of(self, s: Snapshot, without: Collection[str], taken: Shares = NONE_TAKEN) -> list[DueSite]:
        """Sites in doubt that may be served now, with whose mail it is; see Claims.doubtful_sites.

        Of more than DOUBTFUL_SEEN the others are walked through only where of the first none may go.
        """
        started = time.monotonic()
        if started < self._until:
            self._kept = [site for site in self._kept if site.site not in without]
            return [site for site in self._kept if not _is_taken(site, taken)]
        if (is_few := await _is_few(s)) is None:
            return []
        look = _Look(s, is_few, without, taken)
        found = await look.at_the_first() or await look.beyond_the_first()
        if look.took > COSTLY:
            self._kept, self._until = found, started + RESTS * look.took
        return found


def _is_taken(site: DueSite, taken: Shares) -> bool:
    if site.message in taken.messages or site.sender in taken.senders:
        return True
    return bool(taken.domains) and registrable(site.destination) in taken.domains


async def next_due(s: Snapshot, after: float) -> float | None:
    """When there is next something to do, later than `after`; see Claims.next_due."""
    due: float | None = await s.value(
        # What is NULL is no time: least() passes over it.
        "SELECT least("
        "(SELECT min(until) FROM suspension WHERE until > greatest($1::float8, $2::float8)), "
        f"(SELECT d.ready FROM destination d WHERE d.ready > $2 AND {_RELAY_IS_OPEN} "
        "AND d.name NOT IN (SELECT destination FROM suspension WHERE until > $1) ORDER BY d.ready LIMIT 1), "
        "(SELECT min(expires) FROM entry WHERE state = 'waiting' AND expires > $2), "
        "(SELECT min(notice_at) FROM entry WHERE state = 'waiting' AND notice_at > $2), "
        "(SELECT min(tell_at) FROM message WHERE tell_at > $2), "
        "(SELECT min(due) FROM operation WHERE due > $2), "
        "(SELECT min(until) FROM hold_rule WHERE until > $2), "
        "(SELECT min(until) FROM override WHERE until > $2))",
        s.now,
        after,
    )
    return due


async def _is_few(s: Snapshot) -> bool | None:
    """Whether few destinations are due: however many wait for later, they need not be walked through then.

    None where the whole relay is suspended.
    """
    is_open, count = await s.row(
        f"SELECT {_RELAY_IS_OPEN}, (SELECT count(*) FROM (SELECT 1 FROM destination WHERE ready <= $1 LIMIT $2) d)",
        s.now,
        FEW,
    ) or (False, 0)
    return bool(count < FEW) if is_open else None


def _texts(names: Collection[str]) -> list[str]:
    return [storable(name) for name in sorted(names)]


# -- in order of turns ----------------------------------------------------------------------------------------------


async def _of_few(
    s: Snapshot, is_in_doubt: bool, without: Collection[str], limit: int
) -> Sequence[tuple[int, str, str]]:
    """Turn, name and site of the first due of up to `limit` sites, of those in doubt or of the others."""
    rows = await s.fetch(
        "SELECT * FROM (SELECT DISTINCT ON (site) turn, name, site "
        f"FROM {_THE_FEW} d WHERE {_DUE} AND d.took_at {'=' if is_in_doubt else '>'} 0 ORDER BY site, turn, name) f "
        "ORDER BY turn, name LIMIT $3",
        s.now,
        _texts(without),
        limit,
    )
    return [(turn, name, site) for turn, name, site in rows]


async def _in_turn(
    s: Snapshot, is_in_doubt: bool, without: Collection[str], limit: int
) -> Sequence[tuple[int, str, str]]:
    """The same, by the index of turns: some at a time, each without the sites found before."""
    found: dict[str, tuple[int, str, str]] = {}
    after = _FIRST_KEY
    while len(found) < limit:
        rows = await s.fetch(
            f"SELECT turn, name, site FROM destination d WHERE {_DUE} AND d.took_at {'=' if is_in_doubt else '>'} 0 "
            "AND (d.turn, d.name) > ($3, $4) ORDER BY d.turn, d.name LIMIT $5",
            s.now,
            [*_texts(without), *found],
            *after,
            2 * limit,
        )
        for turn, name, site in rows:
            found.setdefault(site, (turn, name, site))
        if len(rows) < 2 * limit:
            break
        after = rows[-1][0], rows[-1][1]
    return list(found.values())[:limit]


# -- in doubt -------------------------------------------------------------------------------------------------------


class _Look:
    """A look at the sites in doubt; `took` is how many seconds the server has spent on it."""

    def __init__(self, s: Snapshot, is_few: bool, without: Collection[str], taken: Shares) -> None:
        self.took = 0.0
        self._s = s
        self._table = _THE_FEW if is_few else "destination"
        self._without = _texts(without)
        self._taken = taken

    async def at_the_first(self) -> list[DueSite]:
        """Sites that may be served now, among the first DOUBTFUL_SEEN destinations of each kind."""
        found: dict[str, DueSite] = {}
        for has_failed in (False, True):
            for site in await self._of_kind(has_failed, _FIRST_KEY):
                found.setdefault(site.site, site)
        return list(found.values())

    async def beyond_the_first(self) -> list[DueSite]:
        """Those beyond the first, among which there are none: as many as are met first."""
        found: dict[str, DueSite] = {}
        for has_failed in (False, True):
            after = await self._end(has_failed, _FIRST_KEY)
            while not found and after is not None:
                for site in await self._of_kind(has_failed, after):
                    found.setdefault(site.site, site)
                after = await self._end(has_failed, after)
        return list(found.values())

    async def _of_kind(self, has_failed: bool, after: tuple[int, str]) -> list[DueSite]:
        """The first DOUBTFUL_AT_ONCE that may go among the DOUBTFUL_SEEN destinations behind this turn and name."""
        found: list[DueSite] = []
        left = DOUBTFUL_SEEN
        while left > 0 and len(found) < DOUBTFUL_AT_ONCE:
            rows = await self._some(has_failed, after, left)
            # Whose a domain is only we know, and not the server.
            domains = self._taken.domains
            open_to = [row for row in rows if not domains or registrable(row.name) not in domains]
            found += (_site(row, has_failed=has_failed) for row in open_to)
            if len(rows) < DOUBTFUL_AT_ONCE:
                break
            after = (rows[-1].turn, rows[-1].name)
            left -= rows[-1].place
        return found[:DOUBTFUL_AT_ONCE]

    async def _some(self, has_failed: bool, after: tuple[int, str], seen: int) -> list[_Doubtful]:
        """The first DOUBTFUL_AT_ONCE of which neither message nor sender has its share, among so many destinations."""
        columns = "turn, name, site, row_number() OVER (ORDER BY d.turn, d.name) AS place"
        # OFFSET 0: each is looked up once, however often it is named.
        mail = (
            f"SELECT d.turn, d.name, d.site, f.message, m.sender, d.place FROM ({self._walk(columns, has_failed)}) d "
            f"CROSS JOIN LATERAL (SELECT {bearings.FIRST} AS message OFFSET 0) f CROSS JOIN LATERAL "
            "(SELECT (SELECT sender FROM message WHERE number = f.message) AS sender OFFSET 0) m"
        )
        nobody, values = "", []
        if self._taken != NONE_TAKEN:
            taken = TAKEN.format(message="f.message", sender="m.sender", messages="$7", senders="$8")
            nobody, values = f"WHERE ({taken}) IS NOT TRUE", [sorted(self._taken.messages), _texts(self._taken.senders)]
        rows = await self._timed(
            f"{mail} {nobody} ORDER BY d.turn, d.name LIMIT $6",
            after,
            seen,
            DOUBTFUL_AT_ONCE,
            *values,
        )
        return [_Doubtful(*row) for row in rows]

    async def _end(self, has_failed: bool, after: tuple[int, str]) -> tuple[int, str] | None:
        """Turn and name of the last of the DOUBTFUL_SEEN destinations behind this one; None: there are not so many."""
        rows = await self._timed(
            f"SELECT * FROM ({self._walk('turn, name', has_failed)}) d ORDER BY turn, name LIMIT 1 OFFSET $6",
            after,
            DOUBTFUL_SEEN,
            DOUBTFUL_SEEN - 1,
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def _walk(self, columns: str, has_failed: bool) -> str:
        # What has failed comes back with one connection, of whatever node: who tries it now is the only one to.
        kind = "d.blocked_until > 0 AND d.relaying = 0" if has_failed else "d.blocked_until = 0"
        return (
            f"SELECT {columns} FROM {self._table} d WHERE {_DUE} AND d.took_at = 0 "
            f"AND {kind} AND (d.turn, d.name) > ($3, $4) "
            "ORDER BY d.turn, d.name LIMIT $5"
        )

    async def _timed(self, query: str, after: tuple[int, str], *values: object) -> list[Row]:
        """Ask, and add what the server took for it: what we wait besides, for the network or our turn, is no cost."""
        rows = await self._s.fetch(
            f"WITH r AS MATERIALIZED ({query}), t AS MATERIALIZED (SELECT count(*) AS count, "
            "extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took FROM r) "
            "SELECT t.took, t.count, r.* FROM t LEFT JOIN r ON TRUE ORDER BY r.turn, r.name",
            self._s.now,
            self._without,
            *after,
            *values,
        )
        took, count, *_ = rows[0]
        self.took += took
        return [row[2:] for row in rows] if count else []


def _site(row: _Doubtful, *, has_failed: bool) -> DueSite:
    return DueSite(
        site=row.site,
        destination=row.name,
        is_in_doubt=True,
        has_failed=has_failed,
        message=row.message or 0,
        sender=row.sender or "",
    )
