"""A destination as the store knows it: its row, its exchanges and site, and that nothing blocks it any more."""

from collections.abc import Collection, Sequence

from engine.model.destination import unknown_site
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Transaction

# Seconds. A destination of much mail is not written anew for each message, only to say that there was one more.
TOUCHED_EVERY = 60.0

_FREE = "blocked_until = 0, blocked_why = '', blocked_cause = ''"


async def know_destinations(tx: Transaction, names: Collection[str]) -> None:
    """See to it that these destinations have a row, in one statement. The names are as the store has them.

    A new one takes its turn just before the one served last: behind all that have waited for theirs, so that a flow
    of new destinations starves none.
    """
    # The sequence gives the number of the last attempt at any cost of the table; it has gaps, which harm nobody. In
    # order of the names, so that two who do this at a time never wait for each other.
    known = sorted(set(names))
    await tx.execute(
        "WITH k AS (SELECT * FROM unnest($1::text[], $2::text[]) AS k (name, site)), "
        "touched AS (INSERT INTO change (destination, touched) SELECT d.name, $3 FROM k "
        "JOIN destination d ON d.name = k.name WHERE d.touched < $3::float8 - $4::float8) "
        "INSERT INTO destination (name, site, turn, touched) "
        "SELECT k.name, k.site, CASE WHEN s.is_called THEN 2 * s.last_value - 1 ELSE 0 END, $3 "
        "FROM k CROSS JOIN attempt_id_seq s ON CONFLICT (name) DO NOTHING",
        known,
        [unknown_site(name) for name in known],
        tx.now,
        TOUCHED_EVERY,
    )


async def note_destination(
    tx: Transaction, destination: str, exchanges: Sequence[str] | None, site: str | None
) -> None:
    """Remember the hosts of a destination, best first, and its site. Nothing is written when they are known.

    With a new site comes what that has proved.
    """
    name = storable(destination).lower()
    row = await tx.row(
        "SELECT site, array(SELECT host FROM exchange WHERE destination = d.name ORDER BY preference) "
        "FROM destination d WHERE name = $1",
        name,
    )
    known_site, known_hosts = row if row is not None else (None, [])
    new_site = storable(site) if site is not None else known_site
    hosts = known_hosts if exchanges is None else list(dict.fromkeys(storable(host).lower() for host in exchanges))
    if new_site == known_site and hosts == known_hosts:
        return
    await know_destinations(tx, [name])
    if new_site != known_site:
        await tx.execute(
            "UPDATE destination SET site = $2, took_at = greatest(took_at, "
            "(SELECT max(d.took_at) FROM destination d WHERE d.site = $2 AND d.took_at > 0)) WHERE name = $1",
            name,
            new_site,
        )
    if hosts != known_hosts:
        await tx.execute(
            "WITH gone AS (DELETE FROM exchange WHERE destination = $1 AND preference >= cardinality($2::text[])) "
            "INSERT INTO exchange (destination, preference, host) "
            "SELECT $1, n - 1, host FROM unnest($2::text[]) WITH ORDINALITY AS h (host, n) "
            "ON CONFLICT (destination, preference) DO UPDATE SET host = excluded.host",
            name,
            hosts,
        )


async def unblock(tx: Transaction, names: Collection[str]) -> None:
    """Connections may be opened again."""
    await tx.execute(
        f"UPDATE destination SET {_FREE}, unreached_at = 0 WHERE name = ANY($1::text[]) AND blocked_until > 0",
        [storable(name).lower() for name in names],
    )


async def unblock_site(tx: Transaction, site: str) -> None:
    """The same for all destinations of a site for which something waits."""
    await tx.execute(
        f"UPDATE destination SET {_FREE}, unreached_at = 0 WHERE site = $1 AND ready IS NOT NULL AND blocked_until > 0",
        storable(site),
    )


async def unblock_because_of(tx: Transaction, host: str, until: float) -> None:
    """Unblock the destinations that are blocked beyond `until` and have the host among their exchanges."""
    await tx.execute(
        f"UPDATE destination SET {_FREE} "
        "WHERE name IN (SELECT destination FROM exchange WHERE host = $1) AND blocked_until > $2",
        host,
        until,
    )
