"""What intake asks of the queue: that it takes mail, and nothing else."""

from collections.abc import Sequence
from typing import Protocol

from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue.contract import KnownLogin


class Taker(Protocol):
    """The part of `engine.queue.Queue` that intake uses."""

    async def enqueue(self, message: NewMessage) -> int:
        """Queue a message and give its number once it is on disk. Raises QueueFull, QueueBroken."""
        ...

    async def forget_key(self, key: str) -> None:
        """The source of this key is gone."""
        ...

    async def record(self, *events: Event) -> None:
        """Keep events that come with no change of the queue."""
        ...


class Receiver(Taker, Protocol):
    """The part of `engine.queue.Queue` that intake over SMTP uses: it also remembers who has logged in, and whence."""

    async def remember_login(self, login: str, address: str) -> None:
        """A login came in rightly from an address."""
        ...

    async def known_logins(self) -> Sequence[KnownLogin]:
        """Whence logins came in rightly, the latest last."""
        ...
