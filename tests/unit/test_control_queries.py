"""What the control socket shows, asked through the real client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from engine.control.client import Refused
from engine.model.destination import Suspension
from engine.model.outcome import Outcome
from engine.queue.errors import QueueError
from tests.unit.fake_relay import DEFERRED, NOW, FakeEngine, entry, short_folder


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


async def test_health_is_one_line_of_everything(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        health = await client.health()
    assert (health.hostname, health.version, health.state, health.trouble) == (
        "relay.example.net",
        "0.1.0",
        "relaying",
        "",
    )
    assert (health.waiting, health.due, health.held, health.relaying, health.destinations) == (12_480, 310, 1, 14, 2)
    assert (health.connections, health.max_connections, health.next_check) == (2, 20, NOW + 28)
    assert (health.now, health.started, health.oldest) == (NOW, NOW - 86_400, NOW - 8040)
    assert (health.undo_seconds, health.confirm_typed_over, health.bad_mx_seconds) == (10.0, 1000, 3600.0)


async def test_the_state_says_the_worst_first(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        engine.queue.suspended = [Suspension(destination="*", since=NOW, until=NOW + 60, by="ann", note="")]
        health = await client.health()
        assert health.state == "suspended"
        assert health.suspended is not None
        assert health.suspended.by == "ann"
        engine.smarthost.draining = True
        assert (await client.health()).state == "draining"
        engine.trouble = "the disk is full"
        health = await client.health()
        assert (health.state, health.trouble) == ("sick", "the disk is full")


async def test_a_suspended_destination_does_not_suspend_the_relay(engine: FakeEngine) -> None:
    engine.queue.suspended = [Suspension(destination="example.org", since=NOW, until=NOW + 60, by="ann", note="")]
    async with engine.serving() as client:
        assert (await client.health()).state == "relaying"
        assert [one.destination for one in await client.suspensions()] == ["example.org"]


async def test_health_is_answered_when_the_store_is_not_readable(engine: FakeEngine) -> None:
    engine.queue.fails = QueueError("disk I/O error")
    async with engine.serving() as client:
        health = await client.health()
        assert (health.state, health.trouble) == ("sick", "the queue cannot be read: disk I/O error")
        overview = await client.overview()
        assert overview.health.state == "sick"
        assert len(overview.relayers) == 2
        assert overview.destinations == ()


async def test_the_overview_has_the_head_of_each_listing(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        overview = await client.overview(destinations=1, events=2)
    assert overview.health.waiting == 12_480
    assert [row.name for row in overview.destinations] == ["example.org"]
    assert [one.id for one in overview.relayers] == [5, 6]
    assert [one.host for one in overview.hosts] == ["mx1.dead.example", "mx.slow.example"]
    assert [one.seq for one in overview.events] == [2, 3]
    assert ("destinations", "", "-waiting", 0, 1) in engine.queue.calls


async def test_a_window_of_the_queue_is_asked_for_as_given(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        window = await client.queue("domain=example.org state=waiting", sort="-due", offset=1, limit=2)
    assert engine.queue.calls == [("window", "domain=example.org state=waiting", "-due", 1, 2)]
    assert (window.total, window.offset, [row.id for row in window.rows]) == (3, 1, ["7.2", "8.1"])
    assert window.rows[0].last == DEFERRED
    assert (window.rows[1].state, window.rows[1].ordered, window.rows[1].by) == ("held", "hold", "root")


async def test_a_message_is_shown_with_its_headers_entries_attempts_and_events(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        message = await client.message(7)
    assert not message.finished
    assert message.headers == ("From: ann@example.net", "Subject: hello \\x1b[31mred", "X-Odd: \\xff")
    assert message.subject == "hello \\x1b]0;title\\x07"
    assert [row.id for row in message.entries] == ["7.1", "7.2"]
    assert [(one.entry, one.interrupted, one.outcome) for one in message.attempts] == [
        (1, False, DEFERRED),
        (1, True, None),
    ]
    assert [(one.kind, one.of) for one in message.events] == [("deferred", "7.1")]


async def test_a_message_whose_body_is_damaged_is_still_shown(engine: FakeEngine) -> None:
    engine.queue.damaged = True
    async with engine.serving() as client:
        message = await client.message(7)
    assert message.headers == ("(the content cannot be read: the body of message 7 is damaged)",)


async def test_a_message_that_has_left_is_what_its_events_tell(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        message = await client.message(6)
    assert message.finished
    assert (message.sender, message.arrived, message.entries) == ("ann@example.net", NOW - 3600, ())
    assert [one.kind for one in message.events] == ["accepted", "delivered"]


async def test_a_message_that_nothing_tells_of_is_not_found(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        with pytest.raises(Refused) as refused:
            await client.message(99)
    assert refused.value.refusal.not_found
    assert "no message 99" in refused.value.refusal.what


async def test_destinations_come_with_what_only_the_engine_knows(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        found = await client.destinations(match="org", sort="name", offset=0, limit=10)
        one = await client.destination("EXAMPLE.org")
    assert engine.queue.calls[0] == ("destinations", "org", "name", 0, 10)
    assert (found.total, found.rows) == (1, (one,))
    assert (one.name, one.connections, one.exchanges) == ("example.org", 2, ("mx.example.org", "mx2.example.org"))


async def test_relayers_are_the_live_ones_then_those_that_ended_last(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        assert [one.id for one in await client.relayers()] == [5, 6]
        assert [one.id for one in await client.relayers(ended=1)] == [5, 6, 4]
        assert [(one.id, one.result) for one in await client.relayers(ended=9)][2:] == [
            (4, "sent 3 of 3"),
            (3, "connect: refused"),
        ]


async def test_a_transcript_is_read_live_and_after_the_end(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        live = await client.transcript(5)
        ended = await client.transcript(3)
        with pytest.raises(Refused) as refused:
            await client.transcript(1)
    assert live.relayer.phase == "DATA"
    assert [(line.side, line.text) for line in live.lines] == [
        ("<", "220 mx.example.org \\x1b[2Jready"),
        (">", "EHLO relay.example.net"),
    ]
    assert ended.relayer.ended == NOW - 60
    assert refused.value.refusal.not_found


async def test_hosts_are_those_whose_mark_has_not_ended(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        hosts = (await client.hosts()).rows
    assert [(one.host, one.until - NOW, one.by, one.waiting) for one in hosts] == [
        ("mx1.dead.example", 761, "engine", 2204),
        ("mx.slow.example", 2882, "oncall", 2204),
    ]
    assert hosts[0].last is not None
    assert hosts[0].next_due == NOW + 60


async def test_events_are_asked_for_as_given(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        events = await client.events(before=9, after=0, message=6, match="cy@", limit=5)
    assert engine.queue.calls == [("events", 9, 0, 6, "cy@", 5)]
    assert [(one.seq, one.kind, one.message, one.of) for one in events] == [
        (1, "accepted", 6, ""),
        (2, "delivered", 6, "6.1"),
    ]


async def test_nothing_shown_can_steer_a_terminal(engine: FakeEngine) -> None:
    hostile = "\x1b]8;;http://x\x07\u202e\udcff\x9b"
    row = entry(7, sender=hostile, recipient=hostile, destination=hostile, subject=hostile, by=hostile, note=hostile)
    engine.queue.entries = [row]
    engine.queue.happened = [
        structs.replace(one, sender=hostile, recipient=hostile, text=hostile, by=hostile, host=hostile)
        for one in engine.queue.happened
    ]
    async with engine.serving() as client:
        texts = repr((await client.queue(), await client.events(), await client.message(7)))
    assert texts.isprintable()
    for wrong in "\x1b", "\u202e", "\x9b":
        assert wrong not in texts


async def test_an_outcome_keeps_all_its_fields_on_the_wire(engine: FakeEngine) -> None:
    outcome = Outcome(
        kind="transient",
        text="lost",
        code=0,
        enhanced="4.4.2",
        host="mx.example.org",
        phase="reply",
        may_duplicate=True,
    )
    engine.queue.entries = [entry(7, last=outcome)]
    async with engine.serving() as client:
        assert (await client.queue()).rows[0].last == outcome
