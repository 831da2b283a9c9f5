"""Who has connected, while it is not known yet who that is: nothing is said, and nothing counts it but this."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

AT_ONCE = 64  # connections of whom it is not known yet who they are


class Meeting(asyncio.Protocol, ABC):
    """A connection until it is known who the client is; while that is so it is among `waiting`.

    Then `met` has it, with the client's address and what it has said already. Where it does not come to that the
    connection is cut without a word, and `failed` is told why; nobody is where the reason is "".
    """

    def __init__(
        self,
        waiting: dict["Meeting", None],
        met: Callable[[asyncio.Transport, str, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        self.come = bytearray()
        self.transport: asyncio.Transport | None = None
        self._waiting = waiting
        self._met = met
        self._failed = failed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no instances of this class
        self._waiting[self] = None
        self.begin()

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        if self.transport is not None:
            self.come += data
            self.heard()

    def eof_received(self) -> None:
        """Nothing more will come."""
        self.give_up("it ends in the middle" if self.come else "")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Whoever it was has gone."""
        self._leave()

    @abstractmethod
    def begin(self) -> None:
        """Find out who it is: from here on it may be met."""

    @abstractmethod
    def heard(self) -> None:
        """Look at what has come."""

    @abstractmethod
    def end(self) -> None:
        """It is over: let go of what ran for it."""

    def meet(self, client: str, *, behind: int = 0) -> None:
        """It is known who has come; what it said begins behind so many octets."""
        if (transport := self.transport) is not None:
            self._leave()
            self._met(transport, client, bytes(self.come[behind:]))

    def give_up(self, why: str) -> None:
        """Cut the connection, and tell why; "" tells nobody."""
        if self.transport is not None:
            self.transport.abort()
            if why:
                self._failed(why)
        self._leave()

    def _leave(self) -> None:
        self._waiting.pop(self, None)
        if self.transport is not None:
            self.transport = None
            self.end()
