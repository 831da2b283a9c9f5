"""Arrivals in memory for the tests of intake: they take messages, and can fail or take their time."""

import asyncio

from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue.contract import Arrivals, KnownLogin


class FakeArrivals(Arrivals):
    """Keeps what was enqueued. `fail` is raised instead while set; clear `open_gate` to make commits wait."""

    def __init__(self) -> None:
        self.messages: list[NewMessage] = []
        self.keys: dict[str, int] = {}
        self.forgotten: list[str] = []
        self.events_recorded: list[Event] = []
        self.logins: list[KnownLogin] = []
        self.fail: Exception | None = None
        self.started = asyncio.Event()
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    async def enqueue(self, message: NewMessage) -> int:
        self.started.set()
        await self.open_gate.wait()
        if self.fail is not None:
            raise self.fail
        if message.key is not None and message.key in self.keys:
            return self.keys[message.key]
        self.messages.append(message)
        number = len(self.messages)
        if message.key is not None:
            self.keys[message.key] = number
        return number

    async def forget_key(self, key: str) -> None:
        self.keys.pop(key, None)
        self.forgotten.append(key)

    async def forget_keys(self, beginning: str, below: int) -> None:
        self.keys = {key: at for key, at in self.keys.items() if not key.startswith(beginning) or at >= below}

    async def record(self, *events: Event) -> None:
        self.events_recorded.extend(events)

    async def remember_login(self, login: str, address: str) -> None:
        self.logins.append(KnownLogin(login=login, address=address, at=0.0))

    async def known_logins(self) -> list[KnownLogin]:
        return self.logins
