"""Nodes: engines that share one queue, what they tell each other, and what is seen of them."""

from typing import Literal, NamedTuple
from zlib import crc32

from msgspec import Struct

NewsKind = Literal["queued", "marks", "resumed", "redirected", "nodes"]


class News(NamedTuple):
    """What another node has done that concerns this one; `name` is the destination that it is about, or ""."""

    kind: NewsKind
    name: str = ""


class Share(NamedTuple):
    """Which part is this node's of what all together may have: it is the one at `place` (from 0) of so many `nodes`."""

    nodes: int = 1
    place: int = 0

    def of(self, number: int, what: str) -> int:
        """This node's part of a number; those of all nodes are the number together.

        What is left over once each has the same goes to other nodes for each thing, so that of what is fewer than
        nodes not all is one node's. It may be 0: then this is for others to do.
        """
        each, over = divmod(number, self.nodes)
        return each + ((self.place + crc32(what.encode())) % self.nodes < over)


ALL_OF_IT = Share()
QUEUED = News("queued")  # something may go
MARKS = News("marks")  # a host was marked bad, or good
NODES = News("nodes")  # a node has come, has gone, was lost, or is drained


class Said(Struct, frozen=True, kw_only=True):
    """What a node says of itself at each heartbeat.

    `state` and `trouble` are those of its health. `connections` of `max_connections` are open, with `relaying` messages
    that it answers for; rates are recipients a second.
    """

    state: str = ""
    trouble: str = ""
    connections: int = 0
    max_connections: int = 0
    relaying: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0


class NodeState(Struct, frozen=True, kw_only=True):
    """One of the engines that share a queue, as of its last heartbeat at `beat`.

    `since` is when its present life, `epoch`, began; what it has is others' `until` it is heard of again (`is_lost`: is
    others' already). `drained_at` is since when an operator (`drained_by`) has it drained: it takes no mail in and
    claims none until that is undone. `is_this`: who was asked is this one. `is_silent`: it lives, and does not answer.
    """

    name: str
    epoch: int
    version: str
    since: float
    beat: float
    until: float
    is_lost: bool = False
    drained_at: float | None = None
    drained_by: str = ""
    is_this: bool = False
    is_silent: bool = False
    said: Said = Said()

    @property
    def is_drained(self) -> bool:
        """Whether an operator has it drained."""
        return self.drained_at is not None

    @property
    def is_active(self) -> bool:
        """Whether it takes mail and sends it."""
        return not self.is_lost and not self.is_drained
