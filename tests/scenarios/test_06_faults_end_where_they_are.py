"""6. A fault, ours or a peer's, costs one message one attempt: nothing spins, nothing is stranded, nothing stops."""

import asyncio

import pytest
from msgspec.structs import replace

import engine.delivery.dsn
from engine.delivery.attempt import AttemptManager
from engine.delivery.relayer import STORE_PAUSE
from engine.model.claim import Claim
from engine.model.verbs import MarkBad, MarkGood, Resume, Suspend
from engine.queue.content import Content
from engine.queue.errors import QueueBroken, QueueBusy, QueueError, QueueFull
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Healthy, Refusing, Script, Slow
from engine.settings.settings import Route
from engine.smtpclient.session import Session
from tests.clock import FakeClock
from tests.scenarios.relaying import QUICK, Relay, relaying
from tests.scenarios.submitting import talk
from tests.waiting import until, until_told

DAY = 86_400.0


async def home(internet: Internet) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])


async def test_a_fault_of_ours_is_an_attempt_with_a_pause_and_not_a_loop(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])

    async def faulty(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Session, "_transact", faulty)
    # One by one the second could come while the first is carried, and have a connection of its own.
    await relay.client.ask(Suspend(destination="*", seconds=600, note="so that all are due at once"))
    await relay.send("a@example.org", times=2)
    await relay.client.ask(Resume(destination="*"))
    await relay.settled()
    assert exchange.sessions == 1
    waiting = await relay.entries()
    assert len(waiting) == 2
    assert sorted(entry.attempts for entry in waiting) == [0, 1]
    assert "fault" in (await relay.engine.queue.listing.destination("example.org")).blocked_why
    monkeypatch.undo()
    await relay.later(2000)
    assert exchange.messages == 2


async def test_mail_to_an_internationalised_address_is_returned_where_the_peer_cannot_take_it(
    internet: Internet, relay: Relay
) -> None:
    await home(internet)
    await internet.add("ascii.example", mx=[(10, "mx.ascii.example", Script({"EHLO": "250-mx\n250 8BITMIME"}))])
    door = relay.engine.smtp.addresses[0]
    async with talk(door) as client:
        await client.reply()
        await client.ehlo()
        for line in ("MAIL FROM:<ann@example.com> SMTPUTF8", "RCPT TO:<клиент@ascii.example>", "DATA"):
            await client.say(line)
        assert (await client.say("Subject: hi\r\n\r\nhi\r\n.")).startswith("250 2.0.0")
    await internet.wait_for(1)
    assert rb"utf-8; \x{43A}" in internet.delivered[0].content


async def test_a_bounce_that_cannot_be_written_is_told_in_plain_words(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home(internet)
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    right = engine.delivery.dsn._headers_of
    monkeypatch.setattr(engine.delivery.dsn, "_headers_of", lambda content: right(content) if not content else 1 / 0)
    await relay.send("bob@fort.example")
    await internet.wait_for(1)
    assert b"see the relay's log" in internet.delivered[0].content


async def test_a_sender_whose_name_is_hostile_is_told_and_nothing_stays_behind(
    internet: Internet, relay: Relay
) -> None:
    await home(internet)
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    sender = "=?utf-8?q?=0D=0A?=@example.com"
    await relay.send("bob@fort.example", sender=sender)
    await internet.wait_for(1)
    await relay.settled()
    assert f"To: {sender}\r\n".encode() in internet.delivered[0].content
    assert await relay.entries() == ()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
async def test_a_peer_that_hangs_up_is_not_dialled_for_each_message(
    internet: Internet, relay: Relay, verb: str
) -> None:
    (exchange,) = await internet.add("busy.example", mx=[(10, "mx.busy.example", Dead())])
    await relay.send("a@busy.example", times=10)
    await relay.settled()
    await exchange.become(Script({verb: "421 4.7.28 unusual rate"}))
    await relay.later(1000)
    assert exchange.sessions == 1
    await relay.later(1000)
    assert exchange.sessions == 2


async def test_a_host_that_keeps_us_waiting_costs_one_attempt(internet: Internet, clock: FakeClock) -> None:
    impatient = replace(QUICK, greeting=0.3, attempt=1)
    async with relaying(internet, clock=clock, timeouts=impatient) as relay:
        hosts = [(10, f"mx{number}.hole.example", BlackHole()) for number in range(30)]
        exchanges = await internet.add("hole.example", mx=hosts)
        await relay.send("a@hole.example")
        await relay.settled()
        assert 1 <= sum(one.sessions for one in exchanges) <= 4  # of thirty, 0.3 s each: cut off at 1 s
        (entry,) = await relay.entries()
        assert entry.attempts == 1


async def test_a_domain_whose_hosts_have_no_address_is_returned(internet: Internet, relay: Relay) -> None:
    await home(internet)
    internet.dns.add("nohost.example", "MX", "10 gone.nohost.example.")
    await relay.send("a@nohost.example")
    await internet.wait_for(1)
    assert b"a@nohost.example" in internet.delivered[0].content


async def test_a_full_disk_delays_a_bounce_and_nothing_else(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home(internet)
    await internet.add("late.example", mx=[(10, "mx.late.example", Script({"RCPT": "450 later"}))])
    await internet.add("ok.example", mx=[(10, "mx.ok.example", Healthy())])
    await relay.send("a@late.example")
    await relay.settled()
    no_room_for_bounces(relay, monkeypatch)
    await relay.later(6 * DAY)
    await relay.send("b@ok.example")
    await internet.wait_for(1)
    assert [delivery.host for delivery in internet.delivered] == ["mx.ok.example"]
    assert "no room" in (await relay.client.health()).trouble
    monkeypatch.undo()
    await relay.later(60)
    await internet.wait_for(2)
    assert await relay.entries() == ()


async def test_what_could_not_be_put_back_is_put_back_later(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    await relay.client.ask(MarkBad(host="mx.example.org", seconds=600, note="test"))

    async def full(*_: object) -> None:
        raise QueueFull("no room")

    monkeypatch.setattr(type(relay.engine.queue.claims), "put_back", full)
    await relay.send("a@example.org")
    check = await relay.engine.smarthost.check_state()
    await check.completed()
    monkeypatch.undo()
    await relay.client.ask(MarkGood(host="mx.example.org"))
    await relay.later(2000)
    assert exchange.messages == 1


async def test_a_result_in_hand_is_recorded_when_the_engine_stops(
    internet: Internet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    right = AttemptManager.report
    stopping = asyncio.Event()

    async def slow(*arguments: object) -> None:
        if not stopping.is_set():
            await asyncio.Event().wait()
        await right(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(AttemptManager, "report", slow)
    async with relaying(internet, clock=clock) as relay:
        await relay.send("a@example.org")
        await internet.wait_for(1)
        stopping.set()
        await relay.engine.smarthost.drain(0.1)
        assert await relay.entries() == ()


async def test_an_asker_who_loses_patience_strands_nothing(internet: Internet, relay: Relay) -> None:
    await internet.add("slow.example", mx=[(10, "mx.slow.example", Slow(0.01))])
    await relay.send("a@slow.example", times=5)
    for _ in range(5):
        asking = asyncio.create_task(relay.engine.smarthost.check_state())
        await asyncio.sleep(0)
        asking.cancel()
    await relay.settled()
    assert internet.messages == 5


async def test_a_route_marked_bad_goes_on_when_it_is_marked_good(internet: Internet, clock: FakeClock) -> None:
    upstream = await internet.host("upstream.example", Healthy())
    route = Route(domain="*", host="upstream.example", port=upstream.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.client.ask(MarkBad(host="upstream.example", seconds=30 * DAY, note="test"))
        await relay.send("a@anywhere.example")
        await relay.settled()
        assert upstream.messages == 0
        await relay.client.ask(MarkGood(host="upstream.example"))
        await internet.wait_for(1)


async def test_more_overdue_mail_than_one_check_takes_is_done_all_the_same(internet: Internet, relay: Relay) -> None:
    await tried_and_suspended(internet, relay, times=0, bounces=250)
    await relay.later(5 * DAY + 60)
    await relay.settled()
    assert await relay.entries() == ()


async def test_a_broken_store_is_told_and_takes_nothing_more(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise QueueBroken("disk I/O error")

    monkeypatch.setattr(type(relay.engine.queue.claims), "due_sites", broken)
    with pytest.raises(Exception, match="I/O"):
        await relay.engine.smarthost.check_state()
    relay.engine.smarthost.wake()
    await until(lambda: "disk I/O error" in relay.engine.smarthost.trouble)
    health = await relay.client.health()
    assert (health.state, "disk I/O error" in health.trouble) == ("sick", True)
    monkeypatch.undo()


class Garbling(Temper):
    """Breaks its own TLS in the middle of the message."""

    certificate = "good"

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "DATA":
            session._writer.write(b"354 go\r\n")
            await session._writer.drain()
            raw = session._writer.transport.get_extra_info("socket")
            raw.send(b"this is no TLS record" * 100)
            return None
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


async def test_a_peer_that_breaks_its_tls_in_the_middle_costs_one_attempt(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("garbling.example", mx=[(10, "mx.garbling.example", Garbling())])
    await relay.send("a@garbling.example", content=b"Subject: long\r\n\r\n" + (b"x" * 900 + b"\r\n") * 1000)
    await relay.settled()
    assert exchange.sessions == 1
    (entry,) = await relay.entries()
    assert entry.attempts == 1


async def test_a_route_to_a_host_that_does_not_exist_keeps_the_mail(internet: Internet, clock: FakeClock) -> None:
    route = Route(domain="*", host="mistyped.example")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("a@anywhere.example")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert entry.last.kind == "transient"


async def test_mail_is_not_returned_because_the_only_host_with_an_address_is_marked_bad(
    internet: Internet, relay: Relay
) -> None:
    await home(internet)
    (exchange,) = await internet.add("stale.example", mx=[(10, "mx.stale.example", Healthy())])
    internet.dns.replace("stale.example", "MX", "10 mx.stale.example.", "20 gone.stale.example.")
    await relay.client.ask(MarkBad(host="mx.stale.example", seconds=600, note="maintenance"))
    await relay.send("a@stale.example")
    await relay.settled()
    assert await relay.events("returned") == []
    await relay.client.ask(MarkGood(host="mx.stale.example"))
    await relay.later(2000)
    assert exchange.messages == 1


def no_room_for_bounces(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> bool:
        raise QueueFull("no room")

    monkeypatch.setattr(type(relay.engine.queue.claims), "tell", full)


async def tried_and_suspended(internet: Internet, relay: Relay, times: int = 1, bounces: int = 0) -> None:
    """Mail to x.example, and so many bounces, that was tried once, and is not again before its time is over."""
    await internet.add("x.example", mx=[(10, "mx.x.example", Script({"RCPT": "450 later"}))])
    await relay.send("b@x.example", times=times)
    await relay.send("b@x.example", times=bounces, sender="")
    await relay.settled()
    await relay.client.ask(Suspend(destination="x.example", seconds=20 * DAY, note="test"))


async def test_what_is_overdue_and_finds_no_room_is_not_tried_in_a_loop(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0
    check = relay.engine.smarthost._check

    async def counted() -> object:
        nonlocal checks
        checks += 1
        return await check()

    await tried_and_suspended(internet, relay, times=120)
    no_room_for_bounces(relay, monkeypatch)
    monkeypatch.setattr(relay.engine.smarthost, "_check", counted)
    await relay.clock.advance(5 * DAY + 60)
    await relay.settled()
    smarthost = relay.engine.smarthost
    # It waits for a time that is to come: one that looks again at once never does.
    await until(lambda: not smarthost._checks and (smarthost.next_check or 0.0) > relay.clock.now())
    assert not smarthost._woken.is_set()
    assert checks < 10
    monkeypatch.undo()
    assert await relay.events("discarded") == []
    await relay.later(60)
    assert await relay.entries("domain=x.example") == ()
    discarded = await until_told(lambda: relay.events("discarded"), lambda found: len(found) >= 120)
    assert len(discarded) == 120  # the senders' domain does not exist


async def test_what_is_overdue_is_given_up_though_nobody_can_be_told_and_they_are_told_once_there_is_room(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home(internet)
    await tried_and_suspended(internet, relay, bounces=20)
    no_room_for_bounces(relay, monkeypatch)
    await relay.later(5 * DAY + 60)
    assert await relay.entries("domain=x.example") == ()
    assert "no room" in (await relay.client.health()).trouble
    monkeypatch.undo()
    await relay.later(60)
    assert [b"Action: failed" in delivery.content for delivery in internet.delivered] == [True]
    assert (await relay.client.health()).trouble == ""


async def test_a_connection_is_closed_when_it_cannot_be_noted_that_its_host_is_good(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("back.example", mx=[(10, "mx.back.example", Dead())])
    await relay.send("a@back.example")
    await relay.settled()
    await exchange.become(Healthy())

    async def full(*_: object) -> None:
        raise QueueFull("no room")

    monkeypatch.setattr(type(relay.engine.queue.marks), "remove", full)
    await relay.later(4000)
    assert exchange.sessions == 1
    await until(lambda: not exchange.open)
    monkeypatch.undo()
    await relay.later(4000)
    assert exchange.messages == 1


async def test_a_fault_in_writing_one_result_strands_none_of_the_others(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("ten.example", mx=[(10, "mx.ten.example", Healthy())])
    attempts = relay.engine.smarthost._parts.attempts
    decide = attempts._decide

    async def faulty(claim: Claim, outcomes: object) -> object:
        if claim.entries[0].recipient == "x0@ten.example":
            raise KeyError("a bug")
        return await decide(claim, outcomes)  # type: ignore[arg-type]

    await relay.client.ask(Suspend(destination="*", seconds=600, note="so that all are due at once"))
    for number in range(10):
        await relay.send(f"x{number}@ten.example")
    monkeypatch.setattr(attempts, "_decide", faulty)
    await relay.client.ask(Resume(destination="*"))
    await relay.settled()
    await relay.later(2000)
    assert exchange.messages == 10
    (entry,) = await relay.entries()  # to send it again or not is for someone to say
    assert (entry.recipient, entry.state, entry.ordered) == ("x0@ten.example", "held", "hold")
    assert "its result cannot be recorded (KeyError); the peer may have taken it" in entry.note


async def test_a_store_that_is_busy_for_a_moment_is_no_damaged_message(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("busy.example", mx=[(10, "mx.busy.example", Healthy())])

    async def busy(*_: object) -> None:
        raise QueueBusy("another program holds the queue")

    monkeypatch.setattr(type(relay.engine.queue.claims), "open_content", busy)
    await relay.send("a@busy.example")
    await relay.settled()
    monkeypatch.undo()
    await relay.later(2000)
    assert exchange.messages == 1


async def test_a_message_that_cannot_be_read_does_not_excuse_what_the_peer_does_after_it(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script({"MAIL": "421 4.7.28 unusual rate"})
    (exchange,) = await internet.add("busy.example", mx=[(10, "mx.busy.example", script)])
    right = relay.engine.queue.claims.open_content
    opened: list[int] = []

    async def unreadable_at_first(message: int) -> object:
        opened.append(message)
        if len(opened) == 1:
            raise QueueError("its content cannot be read")
        return await right(message)

    monkeypatch.setattr(relay.engine.queue.claims, "open_content", unreadable_at_first)
    await relay.client.ask(Suspend(destination="*", seconds=600, note="so that all are due at once"))
    await relay.send("a@busy.example", times=3)
    await relay.client.ask(Resume(destination="*"))
    await relay.settled()
    assert exchange.sessions == 1
    assert [event.destination for event in await relay.events("unreachable")] == ["busy.example"]
    assert sorted(entry.state for entry in await relay.entries()) == ["held", "waiting", "waiting"]


async def test_what_falls_due_is_done_in_time_though_something_else_is_due_and_cannot_go(
    internet: Internet, clock: FakeClock
) -> None:
    patient = replace(QUICK, greeting=20, attempt=30)
    async with relaying(
        internet, clock=clock, check_interval=3600.0, max_connections_per_destination=1, timeouts=patient
    ) as relay:
        (later,) = await internet.add(
            "later.example", mx=[(10, "mx.later.example", Script({"RCPT": ["450 later", "250 ok"]}))]
        )
        await internet.add("hole.example", mx=[(10, "mx.hole.example", BlackHole())])
        await relay.send("a@later.example")
        await relay.settled()
        due = (await relay.entries())[0].due
        for number in range(20):
            await relay.send(f"x{number}@hole.example")
        await until(lambda: bool(relay.engine.smarthost.managed))
        await until(lambda: relay.engine.smarthost.next_check == due)
        await clock.advance(due - clock.now())
        await internet.wait_for(1)
        assert later.messages == 1


async def test_a_store_that_cannot_be_asked_for_a_moment_keeps_no_site_from_mail_for_longer(
    internet: Internet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    async with relaying(internet, clock=clock) as relay:
        claims = relay.engine.queue.claims
        opened = claims.open_content
        refused: list[int] = []

        async def open_content(message: int) -> Content:
            if not refused:
                refused.append(message)
                raise QueueBusy("the database cannot be reached")
            return await opened(message)

        monkeypatch.setattr(claims, "open_content", open_content)
        await relay.send("a@good.example")
        await until(lambda: bool(refused))
        await relay.settled()
        assert internet.messages == 0
        assert (await relay.engine.queue.listing.destination("good.example")).blocked_until == clock.now() + STORE_PAUSE
        await relay.later(STORE_PAUSE + 0.1)
        assert internet.messages == 1
