"""12. What comes back after trouble comes back gently: one connection, and when it has delivered 2, 4, 8."""

import time
from functools import partial

import pytest

from engine.model.message import NewMessage
from engine.model.verbs import MarkBad, MarkGood, Resume, Retry, Suspend
from engine.queue.errors import QueueFull
from engine.queue.sqlite.writer import Transaction
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import Dead, Healthy, Script, Slow
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying

many = partial(relaying, max_connections=30, max_connections_per_destination=16)


class Counting(Slow):
    """Takes its time, and notes how many messages it had when each of its connections began."""

    def __init__(self) -> None:
        super().__init__(0.002)
        self.began_at: list[int] = []

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "connect":
            self.began_at.append(session.exchange.messages)
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


def assert_ramp(counting: Counting) -> None:
    """The second connection comes after a delivery, the fifth after three, the ninth after seven."""
    began = counting.began_at
    assert len(began) >= 9, "it did grow"
    assert began[0] == 0
    assert began[1] >= 1
    assert began[2] >= 1 + 2
    assert began[4] >= 1 + 2 + 4
    assert began[8] >= 1 + 2 + 4 + 8


async def fill(relay: Relay, domain: str, count: int) -> None:
    """Put so many messages into the store at once, as if they had come in long ago."""
    template = await relay.enqueue(_message(f"seed@{domain}"))

    def copy(tx: Transaction) -> None:
        numbers = [(template + number,) for number in range(1, count)]
        for table, columns in (
            ("message", "sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8, ret, envid"),
            ("body", "sha256, content"),
        ):
            key = "number" if table == "message" else "message"
            tx.connection.executemany(
                f"INSERT INTO {table} ({key}, {columns}) SELECT ?, {columns} FROM {table} WHERE {key} = {template}",
                numbers,
            )
        tx.connection.executemany(
            "INSERT INTO entry (message, number, recipient, destination, state, due, expires) "
            f"SELECT ?, number, recipient, destination, 'waiting', due, expires FROM entry WHERE message = {template}",
            numbers,
        )

    await relay.sqlite._database.writer.do(copy)


def _message(recipient: str) -> NewMessage:
    return NewMessage(sender="ann@example.com", recipients=(recipient,), content=LETTER, origin="test")


async def test_ten_thousand_messages_do_not_fall_upon_a_host_that_is_marked_good(
    internet: Internet, clock: FakeClock
) -> None:
    async with many(internet, clock=clock) as relay:
        counting = Counting()
        (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", counting)])
        await relay.client.ask(MarkBad(host="mx.big.example", seconds=3600, note="maintenance"))
        await relay.client.ask(Suspend(destination="*", seconds=3600, note="filling"))
        await fill(relay, "big.example", 10_000)
        await relay.client.ask(Resume(destination="*"))
        await relay.settled()
        assert exchange.sessions == 0
        await relay.client.ask(MarkGood(host="mx.big.example"))
        await internet.wait_for(200)
        assert_ramp(counting)
        assert exchange.most_open <= 16
        assert (await relay.client.health()).waiting > 9000


async def test_so_it_is_when_a_mark_ends_by_itself(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        counting = Counting()
        await internet.add("big.example", mx=[(10, "mx.big.example", counting)])
        await relay.client.ask(MarkBad(host="mx.big.example", seconds=600, note="maintenance"))
        await fill(relay, "big.example", 400)
        await relay.settled()
        await clock.advance(601)
        await internet.wait_for(200)
        assert_ramp(counting)


async def test_so_it_is_when_a_dead_host_lives(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Dead())])
        await fill(relay, "big.example", 400)
        await relay.settled()
        counting = Counting()
        await exchange.become(counting)
        await clock.advance(1000)
        await internet.wait_for(200)
        assert_ramp(counting)


async def test_so_it_is_after_retry(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Dead())])
        await fill(relay, "big.example", 400)
        await relay.settled()
        counting = Counting()
        await exchange.become(counting)
        await relay.client.ask(Retry(filter="domain=big.example"))
        await internet.wait_for(200)
        assert_ramp(counting)


async def test_so_it_is_when_a_destination_is_resumed(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock, initial_connections=10) as relay:
        counting = Counting()
        await internet.add("big.example", mx=[(10, "mx.big.example", counting)])
        await relay.client.ask(Suspend(destination="big.example", seconds=3600, note="storm"))
        await fill(relay, "big.example", 400)
        await relay.settled()
        await relay.client.ask(Resume(destination="big.example"))
        await internet.wait_for(200)
        assert_ramp(counting)


async def test_so_it_is_when_the_whole_relay_is_resumed(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock, initial_connections=10) as relay:
        counting = Counting()
        await internet.add("big.example", mx=[(10, "mx.big.example", counting)])
        await relay.client.ask(Suspend(destination="*", seconds=3600, note="storm"))
        await fill(relay, "big.example", 400)
        await relay.settled()
        await relay.client.ask(Resume(destination="*"))
        await internet.wait_for(200)
        assert_ramp(counting)


async def test_one_connection_goes_on_alone_while_nothing_is_delivered(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        (exchange,) = await internet.add("moody.example", mx=[(10, "mx.moody.example", Dead())])
        await fill(relay, "moody.example", 100)
        await relay.settled()
        await exchange.become(Script({"RCPT": "450 4.2.1 later"}))
        await relay.later(1000)
        assert exchange.most_open == 1
        assert [one.name for one in relay.engine.smarthost.limits_on("moody.example")] == []


async def test_it_is_asked_for_by_name_while_it_comes_back(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Dead())])
        await relay.send("a@big.example", times=20)
        await relay.settled()
        (blocked,) = relay.engine.smarthost.limits_on("big.example")
        assert blocked.name == "blocked"
        assert blocked.until is not None
        assert blocked.until > clock.now()
        assert "refused" in blocked.text
        await exchange.become(Slow(0.02))
        await clock.advance(1000)
        await relay.engine.smarthost.check_state()
        assert [one.name for one in relay.engine.smarthost.limits_on("big.example")] == ["coming back"]
        await internet.wait_for(20)


async def test_a_best_host_that_returns_is_tried_by_one_while_the_others_use_the_next(
    internet: Internet, clock: FakeClock
) -> None:
    async with many(internet, clock=clock) as relay:
        best, second = await internet.add(
            "two.example", mx=[(10, "mx1.two.example", Dead()), (20, "mx2.two.example", Healthy())]
        )
        await relay.send("a@two.example")
        await internet.wait_for(1)
        await relay.settled()
        assert [mark.host for mark in relay.engine.mx.marks] == ["mx1.two.example"]
        await best.become(Script({"connect": "421 4.3.2 still starting"}))
        await clock.advance(3601)
        assert relay.engine.mx.marks == ()
        await fill(relay, "two.example", 60)
        await relay.engine.smarthost.check_state()
        await internet.wait_for(61)
        await relay.settled()
        assert best.sessions == 1
        assert second.messages == 61


async def test_a_site_with_much_mail_that_comes_back_never_spins(internet: Internet, clock: FakeClock) -> None:
    async with many(internet, clock=clock) as relay:
        (exchange,) = await internet.add("moody.example", mx=[(10, "mx.moody.example", Dead())])
        await fill(relay, "moody.example", 200)
        await relay.settled()
        await exchange.become(Script({"connect": "421 4.3.2 too many connections"}))
        for _ in range(5):
            await relay.later(1000)
        assert exchange.sessions <= 5
        before = time.process_time()
        await relay.engine.smarthost.check_state()
        assert time.process_time() - before < 0.5


async def test_a_store_that_is_full_as_a_site_comes_back_sends_nothing_twice(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Dead())])
    await relay.send("a@big.example", times=5)
    await relay.settled()
    await exchange.become(Healthy())

    async def full(*_: object) -> None:
        raise QueueFull("no room")

    monkeypatch.setattr(type(relay.engine.queue.standing), "unblock_site", full)
    await relay.later(1000)
    monkeypatch.undo()
    await relay.later(2000)
    assert exchange.messages == 5
    assert await relay.entries() == ()


async def test_a_destination_whose_last_mail_has_gone_is_not_in_doubt_any_more(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("quiet.example", mx=[(10, "mx.quiet.example", Healthy())])
    internet.dns.behave("quiet.example", Fault.SERVFAIL)
    await relay.send("a@quiet.example")
    await relay.settled()
    assert (await relay.engine.queue.listing.destination("quiet.example")).is_in_doubt
    internet.dns.behave("quiet.example", None)
    await relay.later(2000)
    assert await relay.entries() == ()
    assert not (await relay.engine.queue.listing.destination("quiet.example")).is_in_doubt
