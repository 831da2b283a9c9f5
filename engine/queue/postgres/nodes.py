"""The nodes that share the database: who they are, and which of them are drained."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from engine.base.text import clean
from engine.model.event import Event
from engine.model.node import NODES, NodeState, Said
from engine.queue import contract
from engine.queue.errors import NoSuchNode
from engine.queue.postgres.database import Database, Role, read, written
from engine.queue.postgres.errands import Errands
from engine.queue.postgres.node import LOST_KEPT, Node
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction

MOST = 200  # nodes that are listed


class Nodes(Role, contract.Nodes):
    """A row by name, until the node leaves; that it is drained outlasts it. `soon` has our heart beat at once."""

    def __init__(self, database: Database, node: Node, errands: Errands, soon: Callable[[], None]) -> None:
        super().__init__(database)
        self.report: Callable[[], Said] = Said
        self._node = node
        self._errands = errands
        self._soon = soon

    @property
    def on_request(self) -> Callable[[bytes], Awaitable[bytes]]:
        """Answers what other nodes ask."""
        return self._errands.on_request

    @on_request.setter
    def on_request(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._errands.on_request = answer

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def is_drained(self) -> bool:
        return self._node.is_drained

    @property
    def lease(self) -> float:
        return self._node.left

    @read
    async def all(self, snapshot: Snapshot) -> tuple[NodeState, ...]:
        rows = await snapshot.fetch(
            "SELECT n.name, n.epoch, n.version, n.since, n.beat, n.until, n.is_lost, d.since, coalesce(d.by, ''), "
            "left(n.said, 2000) FROM node n LEFT JOIN drained d USING (name) "
            "WHERE NOT n.is_lost OR n.until > extract(epoch FROM clock_timestamp()) - $1::float8 "
            "ORDER BY n.name LIMIT $2",
            LOST_KEPT,
            MOST,
        )
        return tuple(
            NodeState(
                name=name,
                epoch=epoch,
                version=version,
                since=since,
                beat=beat,
                until=until,
                is_lost=is_lost,
                drained_at=drained_at,
                drained_by=drained_by,
                is_this=name == self._node.name,
                said=_said(said),
            )
            for name, epoch, version, since, beat, until, is_lost, drained_at, drained_by, said in rows
        )

    async def drain(self, name: str, by: str) -> bool:
        changed = await self._drain(name, by)
        self._soon()
        return changed

    async def undrain(self, name: str, by: str) -> bool:
        changed = await self._undrain(name, by)
        self._soon()
        return changed

    async def ask(self, name: str, request: bytes, seconds: float) -> bytes:
        return await self._errands.ask(name, request, seconds)

    def said(self) -> str:
        """What this node says of itself, as it is kept."""
        found = self.report()
        return msgspec.json.encode(msgspec.structs.replace(found, trouble=clean(found.trouble, 300))).decode()

    @written
    async def _drain(self, tx: Transaction, name: str, by: str) -> bool:
        await _known(tx, name)
        changed = await tx.execute(
            "INSERT INTO drained (name, since, by) VALUES ($1, extract(epoch FROM clock_timestamp()), $2) "
            "ON CONFLICT (name) DO NOTHING",
            name,
            storable(by),
        )
        if changed:
            tx.record(Event(at=tx.now, kind="drained", by=by, text=f"node {name} takes no mail and sends none"))
            tx.tell(NODES)
        return bool(changed)

    @written
    async def _undrain(self, tx: Transaction, name: str, by: str) -> bool:
        changed = await tx.execute("DELETE FROM drained WHERE name = $1", storable(name))
        if changed:
            tx.record(Event(at=tx.now, kind="undrained", by=by, text=f"node {name} takes and sends mail again"))
            tx.tell(NODES)
        else:
            await _known(tx, name)
        return bool(changed)


async def _known(tx: Transaction, name: str) -> None:
    if not await tx.value("SELECT EXISTS (SELECT 1 FROM node WHERE name = $1)", storable(name)):
        raise NoSuchNode(f"there is no node {clean(name, 64)}")


def _said(text: str) -> Said:
    """What a node said, as far as it can be read: another version may say it otherwise."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(text, type=Said)
    return Said()
