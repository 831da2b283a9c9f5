"""Nodes: engines that share one queue, and what they tell each other."""

from typing import Literal, NamedTuple
from zlib import crc32

NewsKind = Literal["queued", "marks", "suspensions", "resumed", "redirected", "nodes"]


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
NODES = News("nodes")  # a node has come, has gone, or was lost
