"""kill -9 at each step that a message takes: what was answered with 250 is lost at none of them."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator

import aiosmtplib
import pytest

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Session
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Refusing
from tests.interop.dying import GO_ON
from tests.interop.test_kill import interruptions
from tests.interop.test_postfix_tools import until_empty
from tests.serving import Served, serving
from tests.smtp import smtp_client
from tests.waiting import until

MESSAGES = 3
ONE_CONNECTION = "max_connections = 1"


@contextlib.asynccontextmanager
async def dying(internet: Internet, step: str) -> AsyncIterator[Served]:
    """A relay that kills itself at this step, with nothing else under way: over one connection."""
    under = (sys.executable, "-m", "tests.interop.dying", step)
    async with serving(internet.nameserver, internet.port, extra=ONE_CONNECTION, under=under) as relay:
        yield relay


async def hand_over(relay: Served) -> list[str]:
    """Hand over messages until there are enough or nobody answers; give the recipients of those answered with 250."""
    answered = []
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        async with smtp_client(relay.port, timeout=10) as smtp:
            for number in range(MESSAGES):
                recipient = f"n{number}@example.org"
                await smtp.sendmail("ann@example.com", [recipient], b"Subject: hi\r\n\r\nhi\r\n")
                answered.append(recipient)
                (relay.settings.parent / GO_ON).touch()
    return answered


async def come_back(relay: Served) -> int:
    """Wait until it has died, start it as it should be, wait until its mail has gone; give attempts interrupted."""
    assert relay.process is not None
    assert await asyncio.to_thread(relay.process.wait, 20) == -signal.SIGKILL
    relay.under = ()
    await relay.start()
    await until_empty(relay.control_socket, 30)
    return await interruptions(relay)


@pytest.mark.parametrize(
    ("step", "least", "most", "twice"),  # attempts interrupted, by the record; messages that arrive twice
    [
        ("body written", 0, 0, 0),
        ("commit", 0, 0, 0),
        ("250", 0, 0, 0),
        ("claim", 1, 3, 0),
        ("peer's 250", 1, 3, 1),
        ("settle", 1, 3, 1),
        ("settle commit", 0, 2, 0),
    ],
)
async def test_killed_at_a_step_of_the_way(step: str, least: int, most: int, twice: int) -> None:
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with dying(internet, step) as relay:
            answered = await hand_over(relay)
            interrupted = await come_back(relay)
        arrived = Counter(recipient for one in internet.delivered for recipient in one.recipients)
    assert set(answered) <= set(arrived)
    assert sum(arrived.values()) - len(arrived) == twice
    assert least <= interrupted <= most


class Killing(Healthy):
    """Takes a message, and kills the sender before it says so, once."""

    def __init__(self) -> None:
        self.pid = 0

    async def reply(self, session: Session, verb: str, argument: str) -> None:
        if verb == "content" and self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.pid = 0


async def test_killed_after_the_final_dot() -> None:
    killing = Killing()
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", killing)])
        async with serving(internet.nameserver, internet.port, extra=ONE_CONNECTION) as relay:
            assert relay.process is not None
            killing.pid = relay.process.pid
            answered = await hand_over(relay)
            on_record = await come_back(relay)
        arrived = Counter(recipient for one in internet.delivered for recipient in one.recipients)
    assert set(answered) <= set(arrived)
    assert 1 == sum(arrived.values()) - len(arrived) <= on_record


@pytest.mark.parametrize("step", ["bounce", "bounce commit", "telling", "telling commit"])
async def test_killed_while_a_bounce_is_written_its_sender_is_told_once(step: str) -> None:
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Refusing())])
        (home,) = await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
        async with dying(internet, step) as relay:
            answered = await hand_over(relay)
            await come_back(relay)

            def named() -> Counter[str]:
                notifications = [one.content for one in home.delivered if b"Status: 5." in one.content]
                return Counter(name for one in notifications for name in answered if f"rfc822; {name}".encode() in one)

            # What is settled and not told of yet is in no count: the sender is told in the first check.
            with contextlib.suppress(TimeoutError):
                await until(lambda: set(answered) <= set(named()))
            await until_empty(relay.control_socket, 30)
        found = named()
    assert set(answered) <= set(found)
    assert set(found.values()) <= {1}
