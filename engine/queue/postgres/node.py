"""This engine as one of the nodes that share the queue: its name, the epoch of its present life, and its lease.

What a node claims carries its epoch, and whatever it commits is checked against it in the database: once others have
taken over, or another life has begun under its name, nothing of the old one is written any more. That keeps the record
right; that nothing is *sent* by two is what the lease is for. It is renewed by a heartbeat, ends some time before
others take over, and is counted by a clock that goes on while this process is stopped.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from engine.model.event import Event
from engine.model.node import ALL_OF_IT, NODES, Share
from engine.queue.errors import QueueError
from engine.queue.postgres.connection import CHANNEL
from engine.queue.postgres.transaction import Snapshot, Transaction

# Of the time after which others take over: for so long a node sends after its last heartbeat. The rest is for what it
# has on the wire then, and for clocks that do not go alike.
LEASED = 5 / 6
LOST_KEPT = 86_400.0  # seconds for which it is known of a node that was lost

# Who has not been taken over from, when his lease ends, and whether what is shared is shared with him.
_THERE = (
    "SELECT name, until, NOT EXISTS (SELECT 1 FROM drained d WHERE d.name = node.name "
    "AND d.since < extract(epoch FROM clock_timestamp()) - $1::float8) FROM node WHERE NOT is_lost ORDER BY name"
)


def boottime() -> float:
    """Seconds by a clock that nobody sets, and that goes on while this process, or the machine, sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fenced(QueueError):
    """The epoch of this node is over; nothing was written."""


class Node:
    """What is known of this node here. `heartbeat` and `takeover` are seconds; `version` is that of the program.

    `clock` gives seconds, and is not to be set by anybody.
    """

    def __init__(
        self, name: str, *, heartbeat: float, takeover: float, version: str = "", clock: Callable[[], float] = boottime
    ) -> None:
        self.name = name
        self.heartbeat = heartbeat
        self.takeover = takeover
        self.version = version
        self.epoch = 0
        self.share = ALL_OF_IT
        self.first_end = math.inf  # in how many seconds, from the last heartbeat on, a lease of another ends
        self.is_drained = False  # as of the last heartbeat
        self.is_asked = False  # something by another node that waits for an answer
        self._clock = clock
        self._leased_until = 0.0

    @property
    def left(self) -> float:
        """For how many more seconds it may send; 0.0: not any more."""
        return max(0.0, self._leased_until - self._clock())

    def holds(self, epoch: int) -> bool:
        """Whether what was claimed under this epoch is for sure nobody else's."""
        return epoch == self.epoch and self.left > 0

    async def join(self, tx: Transaction) -> tuple[int, float]:
        """Begin a life; with the commit any before it under this name is over. Gives its epoch, and until when.

        See `joined`, which is told of both once that is done.
        """
        asked = self._clock()
        epoch = await tx.value(
            "INSERT INTO node AS n (name, epoch, version, since, beat, until) "
            "SELECT $1, nextval('epoch'), $2, t.now, t.now, t.now + $3::float8 "
            "FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) t "
            "ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, version = excluded.version, "
            "since = excluded.since, beat = excluded.beat, until = excluded.until, is_lost = FALSE RETURNING epoch",
            self.name,
            self.version,
            self.takeover,
        )
        await tx.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{epoch} nodes ")
        return int(epoch), asked

    def joined(self, epoch: int, asked: float) -> None:
        """A life has begun, for which was asked at a time of the clock."""
        self.epoch = epoch
        self._leased_until = asked + self.takeover * LEASED

    async def beat(self, s: Snapshot, said: str) -> float:
        """Renew the lease, and see who is there; give the time of the database. Raises Fenced where the epoch is over.

        What is shared is shared with who has not been taken over from yet: it may still have its part of it; so may who
        is drained, for a while.
        """
        epoch, asked = self.epoch, self._clock()
        found = await s.row(
            "UPDATE node SET beat = t.now, until = t.now + $2::float8, said = $3 "
            "FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) t "
            "WHERE epoch = $1 AND NOT is_lost "
            "RETURNING t.now, EXISTS (SELECT 1 FROM drained d WHERE d.name = node.name), "
            "EXISTS (SELECT 1 FROM errand e WHERE e.epoch = $1 AND NOT e.is_taken)",
            epoch,
            self.takeover,
            said,
        )
        if found is None:
            self._leased_until = 0.0
            raise Fenced(f"others have taken over from node {self.name}")
        there = await s.fetch(_THERE, self.takeover)
        self.first_end = min((until - found[0] for name, until, _ in there if name != self.name), default=math.inf)
        names = [name for name, _, is_sharing in there if is_sharing]
        if self.name in names:
            self.share = Share(len(names), names.index(self.name))
        if epoch == self.epoch:
            self._leased_until = max(self._leased_until, asked + self.takeover * LEASED)
        now, self.is_drained, self.is_asked = found
        return float(now)

    async def leave(self, connection: Any) -> None:
        """End this life: what it has not settled is anybody's."""
        self._leased_until = 0.0
        await connection.execute("DELETE FROM node WHERE epoch = $1", self.epoch)
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{self.epoch} nodes ")


async def is_someone_lost(s: Snapshot) -> bool:
    """Whether there is a node whose lease has ended, or one that is lost and of whose claims some are not put back."""
    return bool(
        await s.value(
            "SELECT EXISTS (SELECT 1 FROM node WHERE NOT is_lost AND until < extract(epoch FROM clock_timestamp())) "
            "OR EXISTS (SELECT 1 FROM entry WHERE state = 'relaying' "
            "AND epoch <> ALL(ARRAY(SELECT epoch FROM node WHERE NOT is_lost)))"
        )
    )


async def begin_anew(tx: Transaction) -> None:
    """Write something: where others have taken over, that is found, and a new life begun."""
    tx.record(Event(at=tx.now, kind="started", text="others had taken over: what was being sent is theirs"))
    tx.tell(NODES)


async def take_over(tx: Transaction) -> list[str]:
    """Whose lease has ended has lost what it claimed, and can commit nothing more; give the names of these nodes."""
    rows = await tx.fetch(
        "UPDATE node SET is_lost = TRUE WHERE NOT is_lost AND until < extract(epoch FROM clock_timestamp()) "
        "RETURNING name"
    )
    names = sorted(name for (name,) in rows)
    await tx.execute(
        "DELETE FROM node WHERE is_lost AND until < extract(epoch FROM clock_timestamp()) - $1::float8", LOST_KEPT
    )
    for name in names:
        tx.record(Event(at=tx.now, kind="node lost", text=f"node {name} was not heard of: others take over from it"))
    tx.tell(NODES)
    return names
