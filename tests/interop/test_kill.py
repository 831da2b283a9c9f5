"""kill -9 in the middle of traffic, again and again: nothing that was answered with 250 is lost."""

import asyncio
import random
import re
from collections import Counter

import aiosmtplib

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from tests.interop.test_postfix_tools import until_empty
from tests.serving import Served, serving
from tests.smtp import smtp_client

MESSAGES = 1000  # promise 1 asks for 5,000, 20 kills and 50 sessions: set these three to run it
KILLS = 5
SESSIONS = 20


class Senders:
    """Sessions that hand over numbered messages and remember which were answered with 250."""

    def __init__(self, port: int) -> None:
        self.answered: list[int] = []
        self.asked = 0
        self._port = port
        self._stopping = False

    async def one(self) -> None:
        while not self._stopping:
            try:
                async with smtp_client(self._port, timeout=5) as smtp:
                    while not self._stopping:
                        self.asked += 1
                        number = self.asked
                        content = f"Subject: {number}\r\n\r\n".encode() + b"x" * 2000 + b"\r\n"
                        await smtp.sendmail("ann@example.com", [f"n{number}@example.org"], content)
                        self.answered.append(number)
            except (aiosmtplib.SMTPException, OSError):
                await asyncio.sleep(0.02)

    async def until(self, answered: int) -> None:
        while len(self.answered) < answered:
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stopping = True


async def interruptions(relay: Served) -> int:
    """How many attempts were interrupted, by the events of all engines on this spool."""
    found, before = 0, None
    async with relay.client() as client:
        while events := await client.events(before=before, limit=1000):
            found += sum(event.kind == "interrupted" for event in events)
            before = events[0].seq
    return found


async def kill_and_restart(relay: Served, senders: Senders, draw: random.Random) -> None:
    """Let some mail through, then kill at a moment of no one's choosing."""
    await senders.until(len(senders.answered) + draw.randrange(50, 200))
    await asyncio.to_thread(relay.kill)
    await relay.start()


async def test_nothing_answered_with_250_is_lost_over_kills() -> None:
    draw = random.Random(7)
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with serving(internet.nameserver, internet.port) as relay:
            senders = Senders(relay.port)
            tasks = [asyncio.create_task(senders.one()) for _ in range(SESSIONS)]
            try:
                for _ in range(KILLS):
                    await kill_and_restart(relay, senders, draw)
                await senders.until(max(MESSAGES, len(senders.answered) + 100))
            finally:
                senders.stop()
                await asyncio.gather(*tasks)
            await until_empty(relay.control_socket)
            interrupted = await interruptions(relay)
            assert relay.stop() == 0
        arrived = Counter(
            int(re.search(r"n(\d+)@", recipient)[1])  # type: ignore[index]
            for delivery in internet.delivered
            for recipient in delivery.recipients
        )
    lost = set(senders.answered) - set(arrived)
    twice = sum(arrived.values()) - len(arrived)
    print(f"answered {len(senders.answered)}, lost {len(lost)}, twice {twice}, attempts interrupted {interrupted}")
    assert not lost
    # what arrived twice was being sent when the engine was killed, and its record says so
    assert twice <= interrupted
