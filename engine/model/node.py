"""Nodes: engines that share one queue, and what they tell each other."""

from typing import Literal, NamedTuple

NewsKind = Literal["queued", "marks", "suspensions", "resumed", "redirected", "nodes"]


class News(NamedTuple):
    """What another node has done that concerns this one; `name` is the destination that it is about, or ""."""

    kind: NewsKind
    name: str = ""


QUEUED = News("queued")  # something may go
MARKS = News("marks")  # a host was marked bad, or good
NODES = News("nodes")  # a node has come, has gone, or was lost
