"""Nodes: a spool has one owner, so that there are none."""

from collections.abc import Awaitable, Callable

from engine.model.node import NodeState, Said
from engine.queue import contract
from engine.queue.errors import NoSuchNode

_ALONE = "the queue is in a file, which is this engine's alone: there are no nodes"


class Nodes(contract.Nodes):
    """Nobody else is there, nobody is drained, and nobody can be asked."""

    def __init__(self) -> None:
        self.report: Callable[[], Said] = Said
        self.on_request: Callable[[bytes], Awaitable[bytes]] = _nobody_asks

    @property
    def name(self) -> str:
        return ""

    @property
    def is_drained(self) -> bool:
        return False

    @property
    def lease(self) -> float:
        return 0.0

    async def all(self) -> tuple[NodeState, ...]:
        return ()

    async def drain(self, name: str, by: str) -> bool:  # noqa: ARG002
        raise NoSuchNode(_ALONE)

    async def undrain(self, name: str, by: str) -> bool:  # noqa: ARG002
        raise NoSuchNode(_ALONE)

    async def ask(self, name: str, request: bytes, seconds: float) -> bytes:  # noqa: ARG002
        raise NoSuchNode(_ALONE)


async def _nobody_asks(_: bytes) -> bytes:
    raise NoSuchNode(_ALONE)
