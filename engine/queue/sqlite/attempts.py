"""Claims: entries are marked as being relayed before anything is dialled, and given back when nothing was.

Whatever is claimed when the engine starts was interrupted, and goes back to what it was.
"""

import random
import sqlite3
from collections.abc import Sequence

from engine.model.claim import Claim, ClaimedEntry, Relaying
from engine.model.destination import RELAY
from engine.model.event import ENGINE
from engine.model.outcome import Outcome
from engine.queue.attempts import damaged, interrupted, why_not_tried
from engine.queue.bounds import SKIPPED_AT_MOST
from engine.queue.columns import outcome_of, storable
from engine.queue.rows import dsn_of
from engine.queue.sqlite.connection import is_damage
from engine.queue.sqlite.writer import Transaction

# Back to what it was before the claim: an order that stands keeps it held.
_GIVE_BACK = (
    "UPDATE entry SET state = iif(ordered IS NULL, 'waiting', 'held'), giving_up = 0 "
    "WHERE message = ? AND number = ? AND state = 'relaying'"
)


def claim(tx: Transaction, destination: str, limit: int, relayer: int, recipients: int) -> list[Claim]:
    """Claim up to `limit` messages of a destination, with up to `recipients` entries of each; see Claims.claim."""
    if _is_closed(tx, destination):
        return []
    taken = _due(tx, destination, limit, recipients)
    claims = []
    attempt = 0
    for message, numbers in taken.items():
        attempts = {}
        with tx.touching("mail", message, destination):
            for number in numbers:
                attempt = _start_attempt(tx, message, number, relayer)
                attempts[number] = attempt
            claims.append(claimed(tx, message, destination, attempts))
    if claims:
        # The number of an attempt only grows: it serves as the count of turns.
        tx.execute("UPDATE destination SET turn = 2 * ?, touched = ? WHERE name = ?", (attempt, tx.now, destination))
    return claims


def claim_site(tx: Transaction, site: str, limit: int, relayer: int, recipients: int) -> list[Claim]:
    """Claim up to `limit` messages of a site's destinations, that served longest ago first."""
    due = tx.execute(
        "SELECT name FROM destination WHERE site = ? AND ready IS NOT NULL AND ready <= ? "
        "AND name NOT IN (SELECT destination FROM suspension WHERE until > ?) ORDER BY turn, name LIMIT ?",
        (storable(site), tx.now, tx.now, limit),
    ).fetchall()
    claims: list[Claim] = []
    for (destination,) in due:
        if len(claims) >= limit:
            break
        claims += claim(tx, destination, limit - len(claims), relayer, recipients)
    return claims


def put_back(tx: Transaction, claims: Sequence[Claim]) -> None:
    """Give claims back untried, and strike their attempts from the record."""
    for claim in claims:
        for entry in claim.entries:
            if tx.damage.knows("row", claim.message, entry.number):
                continue  # it stays as it is: it is no more sent than what is held
            with tx.touching("row", claim.message, entry.number):
                if _is_running(tx, claim.message, entry):
                    tx.execute(_GIVE_BACK, (claim.message, entry.number))
                    tx.execute("DELETE FROM attempt WHERE id = ?", (entry.attempt,))


def set_aside(tx: Transaction, claim: Claim, why: str) -> None:
    """Hold what cannot be read. A drop that was ordered stands; a bounce would fail for the same reason again."""
    for entry in claim.entries:
        if not _is_running(tx, claim.message, entry):
            continue
        tx.execute(
            "UPDATE entry SET state = 'held', giving_up = 0 WHERE message = ? AND number = ?",
            (claim.message, entry.number),
        )
        tx.execute(
            "UPDATE entry SET ordered = 'hold', ordered_by = ?, note = ?, operation = NULL, "
            "prior = '', prior_by = '', prior_note = '', rule = NULL "
            "WHERE message = ? AND number = ? AND ordered IS NOT 'drop'",
            (ENGINE, storable(why), claim.message, entry.number),
        )
        if not tx.damage.knows("attempt", entry.attempt):
            with tx.touching("attempt", entry.attempt):
                tx.execute("DELETE FROM attempt WHERE id = ?", (entry.attempt,))
        tx.record(damaged(tx.now, claim, entry, why))


def recover(tx: Transaction) -> int:
    """Put back what was being relayed when the engine ended, and say so of each attempt; give how many there were.

    What cannot be read stays as it is: it is no more sent than what is held.
    """
    found = _relaying(tx)
    for message, number, destination in found:
        if not tx.damage.knows("mail", message, destination):
            with tx.touching("mail", message, destination):
                _recover(tx, message, number)
    return len(found)


def _relaying(tx: Transaction) -> list[tuple[int, int, str]]:
    """What is marked as being relayed; where a page is damaged, as far as that can be found out entry by entry."""
    if not tx.damage.knows("relaying"):
        with tx.touching("relaying"):
            return tx.execute(
                "SELECT message, number, destination FROM entry WHERE state = 'relaying' ORDER BY message, number"
            ).fetchall()
    found = []
    met: sqlite3.Error | None = None
    # The keys of all entries are in this index too.
    keys = tx.execute("SELECT message, number, destination FROM entry INDEXED BY entry_destination").fetchall()
    for key in sorted(keys):
        message, number, destination = key
        if tx.damage.knows("mail", message, destination):
            continue
        try:
            is_relaying = "SELECT 1 FROM entry WHERE message = ? AND number = ? AND state = 'relaying'"
            if tx.execute(is_relaying, (message, number)).fetchone():
                found.append(key)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            tx.damage.note("mail", message, destination)
            met = error
    if met is not None:  # nothing can be committed any more: once anew, with all of them known
        raise met
    return found


def _recover(tx: Transaction, message: int, number: int) -> None:
    sender, recipient, destination, giving_up = tx.execute(
        "SELECT m.sender, e.recipient, e.destination, e.giving_up "
        "FROM entry e JOIN message m ON m.number = e.message WHERE e.message = ? AND e.number = ?",
        (message, number),
    ).fetchone()
    text = "the engine ended " + ("before it was returned" if giving_up else "while it was being relayed")
    _interrupt(tx, message, number, sender, recipient, destination, text)


def relaying(connection: sqlite3.Connection) -> tuple[Relaying, ...]:
    """All that is being relayed, or returned; by the index of what is, and by message."""
    rows = sorted(
        connection.execute("SELECT message, number FROM entry INDEXED BY entry_relaying WHERE state = 'relaying'")
    )
    attempts: dict[tuple[int, int], tuple[int, int]] = {}
    for message in dict.fromkeys(message for message, _ in rows):
        running = connection.execute(
            "SELECT entry, id, relayer FROM attempt WHERE message = ? AND ended IS NULL AND NOT interrupted", (message,)
        )
        attempts.update({(message, entry): (attempt, relayer) for entry, attempt, relayer in running})
    return tuple(Relaying(message, number, *attempts.get((message, number), (0, 0))) for message, number in rows)


def put_back_orphans(tx: Transaction, orphans: Sequence[Relaying], why: str) -> int:
    """Put back those of some entries that are still being relayed by the same attempt; give how many there were.

    Nobody knows how far their attempt came: it is told as interrupted, so that the peer may have them.
    """
    count = 0
    for orphan in orphans:
        if tx.damage.knows("row", orphan.message, orphan.entry):
            continue
        with tx.touching("row", orphan.message, orphan.entry):
            row = tx.execute(
                "SELECT m.sender, e.recipient, e.destination, coalesce((SELECT a.id FROM attempt a WHERE a.message = "
                "e.message AND a.entry = e.number AND a.ended IS NULL AND NOT a.interrupted), 0) "
                "FROM entry e JOIN message m ON m.number = e.message "
                "WHERE e.message = ? AND e.number = ? AND e.state = 'relaying'",
                (orphan.message, orphan.entry),
            ).fetchone()
            if row is not None and row[3] == orphan.attempt:
                sender, recipient, destination, _ = row
                _interrupt(tx, orphan.message, orphan.entry, sender, recipient, destination, why)
                count += 1
    return count


def _interrupt(
    tx: Transaction, message: int, number: int, sender: str, recipient: str, destination: str, text: str
) -> None:
    """Give an entry back, and say of its attempt that nobody knows how it ended."""
    tx.execute(_GIVE_BACK, (message, number))
    tx.execute(
        "UPDATE attempt SET interrupted = 1 WHERE message = ? AND entry = ? AND ended IS NULL", (message, number)
    )
    tx.record(interrupted(tx.now, message, number, sender, recipient, destination, text))


def _is_closed(tx: Transaction, destination: str) -> bool:
    row = tx.execute(
        "SELECT EXISTS (SELECT 1 FROM suspension WHERE destination IN (?, ?) AND until > ?) "
        "OR EXISTS (SELECT 1 FROM destination WHERE name = ? AND blocked_until > ?)",
        (RELAY, destination, tx.now, destination, tx.now),
    ).fetchone()
    return bool(row[0])


def _due(tx: Transaction, destination: str, limit: int, recipients: int) -> dict[int, list[int]]:
    """Due entries by message: half of the messages are for those never tried, so that retries do not keep them waiting.

    The one in the middle, which is all there is in claims of one, goes to either by lot: whatever is counted may grow
    by two from claim to claim.
    """
    middle = limit % 2 * random.getrandbits(1)
    taken: dict[int, list[int]] = {}
    _take(tx, taken, "entry INDEXED BY entry_fresh", "AND attempts = 0", destination, limit // 2 + middle, recipients)
    _take(tx, taken, "entry INDEXED BY entry_due", "", destination, limit, recipients)
    return taken


def _take(
    tx: Transaction, taken: dict[int, list[int]], table: str, which: str, destination: str, limit: int, recipients: int
) -> None:
    """Add due entries until there are `limit` messages, the first due first.

    Passes over SKIPPED_AT_MOST that are too many of their message, to bound the cost.
    """
    rows = tx.execute(
        f"SELECT message, number FROM {table} WHERE destination = ? AND state = 'waiting' AND due <= ? {which} "
        "ORDER BY due, message, number LIMIT ?",
        (destination, tx.now, limit * recipients + SKIPPED_AT_MOST),
    )
    for message, number in rows:
        if message not in taken and len(taken) >= limit:
            break
        if tx.damage.knows("mail", message, destination):
            continue
        numbers = taken.setdefault(message, [])
        if number not in numbers and len(numbers) < recipients:
            numbers.append(number)


def _start_attempt(tx: Transaction, message: int, number: int, relayer: int) -> int:
    tx.execute("UPDATE entry SET state = 'relaying' WHERE message = ? AND number = ?", (message, number))
    cursor = tx.execute(
        "INSERT INTO attempt (message, entry, relayer, started) VALUES (?, ?, ?, ?)",
        (message, number, relayer, tx.now),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def claimed(
    tx: Transaction,
    message: int,
    destination: str,
    attempts: dict[int, int],
    given_up: dict[int, str] | None = None,
    fared: Outcome | None = None,
) -> Claim:
    sender, size, arrived, eight_bit, smtputf8, ret, envid = tx.execute(
        "SELECT sender, size, arrived, eight_bit, smtputf8, ret, envid FROM message WHERE number = ?", (message,)
    ).fetchone()
    entries = []
    for number, attempt in attempts.items():
        recipient, before, last, notify, orcpt, expires = tx.execute(
            "SELECT recipient, attempts, last, notify, orcpt, expires FROM entry WHERE message = ? AND number = ?",
            (message, number),
        ).fetchone()
        why = (given_up or {}).get(number, "")
        entries.append(
            ClaimedEntry(
                number=number,
                recipient=recipient,
                attempt=attempt,
                attempts=before,
                expires=expires,
                given_up=why,
                last=outcome_of(last) or fared,
                dsn=dsn_of(notify, orcpt),
            )
        )
    return Claim(
        message=message,
        sender=sender,
        size=size,
        arrived=arrived,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        destination=destination,
        entries=tuple(entries),
        ret=ret,
        envid=envid,
    )


def how_it_fared(connection: sqlite3.Connection, destination: str) -> Outcome | None:
    """Why mail to a destination could not be tried."""
    row = connection.execute("SELECT last, blocked_why FROM destination WHERE name = ?", (destination,)).fetchone()
    return why_not_tried(*row)


def _is_running(tx: Transaction, message: int, entry: ClaimedEntry) -> bool:
    """Whether this very claim still stands: it may have been settled, and the entry claimed anew."""
    if entry.attempt:
        query = "SELECT 1 FROM attempt WHERE id = ? AND ended IS NULL AND NOT interrupted"
        return tx.execute(query, (entry.attempt,)).fetchone() is not None
    query = "SELECT 1 FROM entry WHERE message = ? AND number = ? AND giving_up"
    return tx.execute(query, (message, entry.number)).fetchone() is not None
