"""The questions that an operator comes with (twelve of them), each played by keys at the console of a busy relay.

The answer is read off the screen as it is drawn, and held against what the engine says when it is asked directly, on
a connection of the test's own. What changes while one looks must agree at some moment of the next seconds.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from msgspec import Struct
from textual.pilot import Pilot

from console.app import Console
from console.format import Moment, rate
from engine.base.clock import SystemClock
from engine.base.threads import LoopThread
from engine.control.client import Client, Refused
from engine.model.verbs import MarkGood, Retry, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script, Tarpit
from tests.serving import Served, serving
from tests.smtp import smtp_client

LETTER = b"From: ann@example.com\r\nSubject: %b\r\n\r\nHow are you?\r\n"
SETTINGS = """
bad_mx_timeout = "20m"
idle = "0.2s"
[delivery.timeouts]
connect = "2s"
greeting = "16s"
[retry]
schedule = ["5m", "10m"]
[console]
undo = "1s"
"""
LOOKED = 15.0  # seconds in which screen and engine must have agreed
BUSY = ("north.example", "south.example", "west.example")


class Night(Struct, frozen=True):
    """A relay in the middle of its traffic, and the internet it sends to."""

    relay: Served
    internet: Internet
    loop: asyncio.AbstractEventLoop

    async def mend(self, host: str) -> None:
        """Have a host take mail from now on."""
        mended = self.internet.exchange(host).become(Healthy())
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(mended, self.loop))


async def _send(relay: Served, recipients: list[str], *, sender: str = "ann@example.com", subject: str = "hi") -> None:
    async with smtp_client(relay.port) as smtp:
        for recipient in recipients:
            await smtp.sendmail(sender, [recipient], LETTER % subject.encode())


async def _traffic(relay: Served) -> None:
    """Mail for everybody, as long as this runs."""
    count = 0
    async with smtp_client(relay.port) as smtp:
        while True:
            count += 1
            await smtp.sendmail("ann@example.com", [f"u{count}@{BUSY[count % 3]}"], LETTER % b"news")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _night() -> AsyncIterator[Night]:
    async with Internet(clock=SystemClock()) as internet:
        for name in BUSY:
            await internet.add(name, mx=[(10, f"mx.{name}", Healthy())])
        full = Script({"RCPT": "452 4.2.2 <%>: mailbox is full, call 555-0100"})
        await internet.add("full.example", mx=[(10, "mx.full.example", full)])
        await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
        await internet.add("tarpit.example", mx=[(10, "mx.tarpit.example", Tarpit(2.0))])
        await internet.add("mended.example", mx=[(10, "mx.mended.example", Dead())])
        await internet.add("paused.example", mx=[(10, "mx.paused.example", Healthy())])
        internet.dns.add("nomail.example", "MX", "0 .")
        async with serving(internet.nameserver, internet.port, SETTINGS) as relay:
            async with relay.client() as client:
                await client.ask(Suspend(destination="paused.example", seconds=3600, note="their disk is full"))
            await _send(relay, [f"r{number}@full.example" for number in range(4)], subject="invoice")
            await _send(relay, [f"r{number}@dead.example" for number in range(9)])
            await _send(relay, [f"r{number}@mended.example" for number in range(7)])
            await _send(relay, [f"r{number}@paused.example" for number in range(5)])
            await _send(relay, [f"v{n}@paused.example" for n in range(6)], sender="runaway@example.com")
            await _send(relay, ["r@tarpit.example"])
            traffic = asyncio.create_task(_traffic(relay))
            try:
                async with relay.client() as client, asyncio.timeout(30):
                    while (
                        len((await client.hosts()).rows) < 2 or (await client.destination("full.example")).last is None
                    ):
                        await asyncio.sleep(0.05)
                yield Night(relay, internet, asyncio.get_running_loop())
            finally:
                traffic.cancel()


@pytest.fixture(scope="module")
def night() -> Iterator[Night]:
    """One night for all questions: each asks of a domain of its own, or changes nothing."""
    thread = LoopThread(_night, name="night")
    try:
        yield thread.start()
    finally:
        assert thread.stop(20)


class Operator:
    """Somebody at the console, who reads what is drawn and presses keys."""

    def __init__(self, app: Console, pilot: Pilot[None], engine: Client) -> None:
        self.app = app
        self.engine = engine
        self.keys = 0
        self._pilot = pilot

    async def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.keys += 1
            await self._pilot.press(key)

    async def type(self, text: str) -> None:
        """Type a text; of what must be typed no key counts."""
        for char in text:
            await self._pilot.press(char)

    @property
    def screen(self) -> str:
        """What is drawn."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    def line(self, *words: str) -> str:
        """The first line on which all these words stand, or ""."""
        return next((line for line in self.screen.splitlines() if all(word in line for word in words)), "")

    async def until(self, agreed: Callable[[], Awaitable[object]], what: str) -> None:
        """Look at the screen and ask the engine until both agree."""
        try:
            async with asyncio.timeout(LOOKED):
                while not await agreed():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"screen and engine do not agree on {what}:\n{self.screen}") from None

    async def shows(self, *texts: str) -> None:
        """Wait until all these stand on the screen."""

        async def there() -> bool:
            return all(text in self.screen for text in texts)

        await self.until(there, " and ".join(texts))


@pytest.fixture
async def operator(night: Night) -> AsyncIterator[Operator]:
    """An operator who has just opened the console, on a line of 80x24."""
    app = Console(night.relay.client(), poll_seconds=0.25)
    async with night.relay.client() as engine, app.run_test(size=(80, 24)) as pilot:
        operator = Operator(app, pilot, engine)
        await operator.shows("waiting", "dead.example")
        yield operator


async def test_1_is_mail_moving_and_how_fast(operator: Operator) -> None:
    async def agreed() -> bool:
        health = await operator.engine.health()
        said = re.search(r"out +(\S+)/s", operator.screen.splitlines()[0])
        is_moving = "● relaying" in operator.screen.splitlines()[0] and health.rate_out > 0
        return is_moving and said is not None and said[1] == rate(health.rate_out)

    await operator.until(agreed, "the rate out")
    assert operator.keys == 0


async def test_2_which_destinations_are_stuck_and_since_when(operator: Operator) -> None:
    async def agreed() -> bool:
        moment = Moment((await operator.engine.health()).now)
        rows = (await operator.engine.destinations(limit=100)).rows
        stuck = [row for row in rows if row.condition in ("blocked", "suspended", "hosts bad")]
        lines = {row.name: operator.line(row.name, f" {row.waiting:,} ") for row in stuck}
        words = {"blocked": "blocked", "suspended": "suspended", "hosts bad": "bad"}
        return {"dead.example", "paused.example"} <= set(lines) and all(
            words[row.condition] in lines[row.name] and moment.since(row.oldest or 0) in lines[row.name]
            for row in stuck
        )

    await operator.until(agreed, "what is stuck")
    assert operator.keys == 0


async def test_3_why_is_this_destination_stuck_and_what_did_they_say_last(operator: Operator) -> None:
    await operator.press("slash")
    await operator.type("full")
    await operator.press("enter", "enter")
    await operator.shows("mx.full.example")
    row = await operator.engine.destination("full.example")
    assert row.last is not None
    assert row.last.line in " ".join(operator.screen.split()), operator.screen
    assert operator.keys <= 3


async def test_4_which_hosts_are_bad_until_when_and_how_much_waits(operator: Operator) -> None:
    await operator.press("4")

    async def agreed() -> bool:
        hosts = {host.host: host for host in (await operator.engine.hosts()).rows}
        lines = {name: operator.line(name) for name in hosts}
        now = (await operator.engine.health()).now
        return "mx.dead.example" in lines and all(
            f" {hosts[name].waiting} " in line and any(
                Moment(now + off).left(hosts[name].until) in line for off in (-60, -2, -1, 0, 1, 2)
            ) for name, line in lines.items()
        )  # fmt: skip

    await operator.until(agreed, "the bad hosts")
    assert operator.keys == 1


async def test_5_where_is_the_message_to_this_recipient_and_what_happened_to_it(operator: Operator) -> None:
    await operator.press("2", "slash")
    await operator.type("to=r2@full.example")
    await operator.press("enter", "enter")
    await operator.shows("Attempts")
    [entry] = (await operator.engine.queue("to=r2@full.example")).rows
    message = await operator.engine.message(entry.message)
    [attempt] = message.attempts
    assert attempt.outcome is not None
    seen = " ".join(operator.screen.split())
    assert f"message {entry.message}" in seen
    assert attempt.outcome.line in seen
    assert "r2@full.example" in seen
    assert operator.keys == 4


async def test_6_when_will_it_be_tried_again_and_can_i_send_it_now(operator: Operator) -> None:
    await operator.press("2", "slash")
    await operator.type("to=r3@full.example")
    await operator.press("enter")
    await operator.shows("1 of 1")
    [entry] = (await operator.engine.queue("to=r3@full.example")).rows
    assert entry.next_try is not None

    async def agreed() -> bool:
        [now] = (await operator.engine.queue("to=r3@full.example")).rows
        at = (await operator.engine.health()).now
        line = operator.line(f"{now.id} ")
        return now.next_try is not None and any(
            Moment(at + off).left(now.next_try) in line for off in (-60, -2, -1, 0, 1, 2)
        )

    await operator.until(agreed, "the next try")
    before = entry.attempts
    await operator.press("r")

    async def tried() -> bool:
        [now] = (await operator.engine.queue("to=r3@full.example")).rows
        return now.attempts > before

    await operator.until(tried, "another try")
    await operator.shows("1 retried")
    await operator.shows("452")
    assert operator.keys == 4


async def test_7_which_connections_are_open_and_is_one_hanging(operator: Operator) -> None:
    await operator.press("3")

    async def agreed() -> bool:
        relayers = await operator.engine.relayers()
        hanging = [one for one in relayers if one.host == "mx.tarpit.example"]
        line = operator.line("mx.tarpit.example")
        return bool(hanging) and hanging[0].phase in line and ("▲" in line) == hanging[0].stalling and bool(line)

    if not any(one.host == "mx.tarpit.example" for one in await operator.engine.relayers()):
        await operator.engine.ask(Retry(filter="domain=tarpit.example"))
    await operator.until(agreed, "the connection that hangs")
    assert operator.keys == 1


async def test_8_what_is_that_server_saying_line_by_line(operator: Operator, night: Night) -> None:
    await operator.press("3")

    async def is_open() -> bool:
        """Its connection lasts as long as its greeting may take: where that is over, there is another."""
        if "mx.tarpit.example" not in operator.screen:
            with suppress(Refused):  # it is not marked bad
                await operator.engine.ask(MarkGood(host="mx.tarpit.example"))
            with suppress(Refused):  # nothing waits
                await operator.engine.ask(Retry(filter="domain=tarpit.example"))
        return "mx.tarpit.example" in operator.screen

    await operator.until(is_open, "mx.tarpit.example")
    await operator.press("slash")
    await operator.type("tarpit")
    await operator.press("enter", "enter")

    async def agreed() -> bool:
        number = re.search(r"mx\.tarpit\.example #(\d+)", operator.screen)
        if number is None:
            if "nothing matches" in operator.screen:  # it has ended meanwhile, before it was opened
                await operator.until(is_open, "another connection to mx.tarpit.example")
                await operator.press("enter")
                operator.keys -= 1  # whoever is quicker needs it not
            return False
        spoken = await operator.engine.transcript(int(number[1]))
        return bool(spoken.lines) and all(line.text in operator.screen for line in spoken.lines)

    await operator.until(agreed, "what was said")
    assert operator.keys <= 4


async def test_9_what_would_happen_to_mail_to_this_address_now(operator: Operator) -> None:
    await operator.press("colon")
    await operator.type("explain ann@nomail.example")
    await operator.press("enter")
    [said] = (await operator.engine.explain("ann@nomail.example")).explanations
    await operator.shows("returned")
    assert said.text in " ".join(operator.screen.split())
    assert said.cause == "refused by DNS"
    assert operator.keys == 2


async def test_10_stop_mail_to_one_domain_for_an_hour_who_did_that_and_when_does_it_end(operator: Operator) -> None:
    await operator.press("colon")
    await operator.type("suspend stop.example 1h their loop")
    await operator.press("enter")
    await operator.shows("is suspended for 1h")
    [found] = [row for row in await operator.engine.overrides() if row.name == "stop.example"]
    assert found.until - found.since == pytest.approx(3600, abs=1)
    await operator.press("7")
    await operator.shows("stop.example", "their loop", f"by {found.by}")
    now = (await operator.engine.health()).now
    line = operator.line("stop.example")
    assert any(Moment(now + off).left(found.until) in line for off in (-60, -2, -1, 0, 1, 2)), line
    assert operator.keys == 3


async def test_11_throw_away_the_messages_of_one_runaway_sender_and_nothing_else(operator: Operator) -> None:
    others = {row.id for row in (await operator.engine.queue("domain=paused.example !from~runaway", limit=500)).rows}
    assert len(others) == 5
    await operator.press("2", "slash")
    await operator.type("from=runaway@example.com")
    await operator.press("enter")
    await operator.shows("1 of 6")
    await operator.press("a", "D")
    await operator.shows("Drop 6 messages?")
    await operator.press("right", "enter")

    async def gone() -> bool:
        return (await operator.engine.queue("from=runaway@example.com")).total == 0

    await operator.until(gone, "what was dropped")
    await operator.shows("6 messages dropped")
    left = {row.id for row in (await operator.engine.queue("domain=paused.example", limit=500)).rows}
    assert left == others


async def test_12_the_far_side_is_fixed_let_the_backlog_go_gently(operator: Operator, night: Night) -> None:
    await night.mend("mx.mended.example")
    waiting = (await operator.engine.destination("mended.example")).waiting
    assert waiting == 7
    await operator.press("4", "slash")
    await operator.type("mended")
    await operator.press("enter", "g")
    await operator.shows("Mark mx.mended.example good?", "7 messages, 7 recipients", "one connection first")
    await operator.press("right", "enter")

    async def gone() -> bool:
        return (await operator.engine.destination("mended.example")).waiting == 0

    await operator.until(gone, "the backlog")
    await operator.shows("7 delivered")
    assert not any(host.host == "mx.mended.example" for host in (await operator.engine.hosts()).rows)
    assert operator.keys == 6
