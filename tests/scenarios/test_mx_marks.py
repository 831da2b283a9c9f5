"""Which hosts are bad: who may say so, for how long, and what that does to the order in which they are tried."""

from collections.abc import Sequence

import dns.asyncresolver
import pytest

from engine.dns.mx import AllMarkedBad, MXCalculator
from engine.model.destination import Mark
from engine.model.event import ENGINE
from engine.model.outcome import Outcome
from engine.queue.errors import QueueBusy
from engine.sandbox.internet import Internet
from tests.clock import FakeClock
from tests.scenarios.marks import MarksInMemory

ONE_HOUR = 3600.0


@pytest.fixture
def store() -> MarksInMemory:
    return MarksInMemory()


@pytest.fixture
def mx(
    internet: Internet, resolver: dns.asyncresolver.Resolver, clock: FakeClock, store: MarksInMemory
) -> MXCalculator:
    internet.dns.add("example.org", "MX", "10 one.example.", "20 two.example.", "30 three.example.")
    return MXCalculator(resolver, clock=clock, marks=store)


async def hosts(mx: MXCalculator) -> list[str]:
    return [exchange.host for exchange in await mx.exchanges("example.org")]


async def test_hosts_the_engine_found_bad_are_tried_last_and_say_so(mx: MXCalculator) -> None:
    second = await mx.mark_bad("two.example", note="refused")
    first = await mx.mark_bad("one.example", note="refused")
    assert await hosts(mx) == ["three.example", "one.example", "two.example"]
    assert [exchange.mark for exchange in await mx.exchanges("example.org")] == [None, first, second]


async def test_hosts_an_operator_marked_bad_are_left_out(mx: MXCalculator) -> None:
    await mx.mark_bad("one.example", note="maintenance", by="oncall")
    assert await hosts(mx) == ["two.example", "three.example"]


async def test_when_operators_left_out_all_it_says_until_when(mx: MXCalculator, clock: FakeClock) -> None:
    for seconds, host in ((300, "one.example"), (60, "two.example"), (600, "three.example")):
        await mx.mark_bad(host, seconds=seconds, note="\x1b[2Jmoving house", by="oncall")
    with pytest.raises(AllMarkedBad) as caught:
        await mx.exchanges("example.org")
    assert caught.value.until == clock.now() + 60
    assert caught.value.hosts == ("one.example", "two.example", "three.example")
    assert (caught.value.outcome.kind, caught.value.outcome.enhanced) == ("transient", "4.4.1")
    assert "moving house" in caught.value.outcome.text
    assert "\x1b" not in caught.value.outcome.text
    assert (await mx.get_mx("example.org")).host == "one.example"


async def test_a_mark_is_in_the_store_before_it_is_confirmed(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock
) -> None:
    said = Outcome.transient("connect: refused", host="one.example")
    mark = await mx.mark_bad("One.Example.", note="connect: \x07refused", last=said)
    assert store.kept == {"one.example": mark}
    assert mark == Mark(
        host="one.example",
        since=clock.now(),
        until=clock.now() + ONE_HOUR,
        by=ENGINE,
        note="connect: \\x07refused",
        last=said,
    )
    assert mx.mark("ONE.example.") == mark
    assert mx.marks == (mark,)


async def test_marks_outlive_a_restart(
    mx: MXCalculator, store: MarksInMemory, resolver: dns.asyncresolver.Resolver, clock: FakeClock
) -> None:
    await mx.mark_bad("one.example", note="maintenance", by="oncall")
    await mx.mark_bad("two.example", seconds=5, note="refused")
    await clock.advance(10)
    again = MXCalculator(resolver, clock=clock, marks=store)
    assert await hosts(again) == ["one.example", "two.example", "three.example"]
    await again.load()
    assert await hosts(again) == ["two.example", "three.example"]
    assert [mark.host for mark in again.marks] == ["one.example"]


async def test_the_engine_leaves_the_mark_of_an_operator_as_it_is(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock
) -> None:
    mark = await mx.mark_bad("one.example", seconds=60, note="maintenance", by="oncall")
    assert await mx.mark_bad("one.example", note="refused") == mark
    assert await mx.mark_good("one.example") is None
    assert mx.mark("one.example") == mark
    assert store.writes == ["save one.example by oncall"]
    await clock.advance(60)
    assert (await mx.mark_bad("one.example", note="refused")).by == ENGINE


async def test_an_operator_may_replace_any_mark(mx: MXCalculator, clock: FakeClock) -> None:
    await mx.mark_bad("one.example", note="refused", last=Outcome.transient("refused"))
    await mx.mark_bad("one.example", seconds=60, note="maintenance", by="oncall")
    mark = await mx.mark_bad("one.example", seconds=30, note="nearly done", by="night")
    assert (mark.by, mark.note, mark.until) == ("night", "nearly done", clock.now() + 30)
    assert mark.last == Outcome.transient("refused")


async def test_a_host_found_bad_again_has_been_bad_since_the_first_time(mx: MXCalculator, clock: FakeClock) -> None:
    first = await mx.mark_bad("one.example", note="refused")
    await clock.advance(100)
    second = await mx.mark_bad("one.example", note="timed out")
    assert (second.since, second.until, second.note) == (first.since, first.until + 100, "timed out")


async def test_marking_good_says_how_much_mail_it_made_due(mx: MXCalculator, store: MarksInMemory) -> None:
    await mx.mark_bad("one.example", note="maintenance", by="oncall")
    assert await mx.mark_good("ONE.example", by="oncall") == 7
    assert store.kept == {}
    assert await hosts(mx) == ["one.example", "two.example", "three.example"]


async def test_marking_good_a_host_without_mark_writes_nothing(mx: MXCalculator, store: MarksInMemory) -> None:
    assert await mx.mark_good("one.example") is None
    assert await mx.mark_good("one.example", by="oncall") is None
    assert store.writes == []


async def test_a_host_that_answers_after_its_mark_ended_leaves_the_store(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock
) -> None:
    await mx.mark_bad("one.example", note="refused")
    await clock.advance(ONE_HOUR)
    assert await hosts(mx) == ["one.example", "two.example", "three.example"]
    assert mx.marks == ()
    await mx.mark_good("one.example")
    await mx.mark_good("one.example")
    assert store.writes == ["save one.example by engine", "remove one.example by engine"]


async def test_ended_marks_are_let_go_though_nobody_asks_for_their_hosts(mx: MXCalculator, clock: FakeClock) -> None:
    for n in range(100):
        await mx.mark_bad(f"mx{n}.example", seconds=60, note="refused")
        await clock.advance(30)
    assert len(mx._marks) <= 3
    assert [mark.host for mark in mx.marks] == ["mx98.example", "mx99.example"][-len(mx.marks) :]


async def test_many_marks_in_force_are_all_kept(mx: MXCalculator) -> None:
    for n in range(50):
        await mx.mark_bad(f"mx{n}.example", note="refused")
    assert (len(mx.marks), mx.marked) == (50, 50)


async def test_of_too_many_marks_of_the_engine_those_that_end_first_are_let_go(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.dns.mx.ENGINE_MARKS", 3)
    await mx.mark_bad("ours.example", seconds=60, note="maintenance", by="oncall")
    assert mx.note == ""
    for n in range(5):
        await mx.mark_bad(f"mx{n}.example", seconds=600 + n, note="refused")
    kept = ["ours.example", "mx2.example", "mx3.example", "mx4.example"]
    assert [mark.host for mark in mx.marks] == kept
    assert mx.marked == 4
    assert mx.mark("mx0.example") is None
    assert set(store.kept) == set(kept)
    assert [one for one in store.writes if one.startswith("forget")] == ["forget mx0.example", "forget mx1.example"]
    assert mx.note == (
        "3 hosts are marked bad by the engine, as many as it remembers: for each further one the mark that ends first"
        " is let go"
    )
    await clock.advance(3600)
    assert (mx.marked, mx.marks, mx.note) == (0, (), "")


async def test_an_operators_marks_are_never_let_go(mx: MXCalculator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dns.mx.ENGINE_MARKS", 3)
    for n in range(10):
        await mx.mark_bad(f"mx{n}.example", note="maintenance", by="oncall")
    assert (mx.marked, mx.note) == (10, "")


async def test_a_store_that_kept_too_many_is_cut_at_the_start(
    resolver: dns.asyncresolver.Resolver, store: MarksInMemory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.dns.mx.ENGINE_MARKS", 3)
    now = clock.now()
    for n in range(5):
        await store.save(Mark(host=f"mx{n}.example", since=now, until=now + 60 + n, by="engine", note="refused"))
    again = MXCalculator(resolver, clock=clock, marks=store)
    await again.load()
    assert [mark.host for mark in again.marks] == ["mx2.example", "mx3.example", "mx4.example"]
    assert set(store.kept) == {"mx2.example", "mx3.example", "mx4.example"}


async def test_a_store_that_cannot_forget_takes_the_new_mark_all_the_same(
    mx: MXCalculator, store: MarksInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.dns.mx.ENGINE_MARKS", 1)
    await mx.mark_bad("one.example", seconds=60, note="refused")

    async def busy(_hosts: Sequence[str]) -> None:
        raise QueueBusy("somebody else holds the queue")

    monkeypatch.setattr(store, "forget", busy)
    mark = await mx.mark_bad("two.example", seconds=90, note="refused")
    assert mx.marks == (mark,)


async def test_a_mark_that_the_store_did_not_take_is_not_made(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock
) -> None:
    before = await mx.mark_bad("one.example", seconds=60, note="refused")
    store.fails = QueueBusy("somebody else holds the queue")
    with pytest.raises(QueueBusy):
        await mx.mark_bad("one.example", seconds=9999, note="maintenance", by="oncall")
    with pytest.raises(QueueBusy):
        await mx.mark_bad("two.example", note="refused")
    assert mx.marks == (before,)


async def test_a_mark_that_the_store_did_not_end_stands_and_can_be_ended_later(
    mx: MXCalculator, store: MarksInMemory, clock: FakeClock
) -> None:
    mark = await mx.mark_bad("one.example", seconds=60, note="refused")
    store.fails = QueueBusy("somebody else holds the queue")
    with pytest.raises(QueueBusy):
        await mx.mark_good("one.example", by="oncall")
    assert mx.mark("one.example") == mark
    await clock.advance(60)
    assert mx.mark("one.example") is None
    with pytest.raises(QueueBusy):
        await mx.mark_good("one.example")
    store.fails = None
    assert await mx.mark_good("one.example") == 7
    assert store.kept == {}


async def test_marks_are_listed_by_when_they_end(mx: MXCalculator) -> None:
    for seconds, host in ((300, "one.example"), (60, "two.example"), (600, "[127.0.0.1]")):
        await mx.mark_bad(host, seconds=seconds, note="refused")
    assert [mark.host for mark in mx.marks] == ["two.example", "one.example", "[127.0.0.1]"]


async def test_a_mark_takes_its_place_at_once_although_the_answer_is_cached(
    internet: Internet, mx: MXCalculator
) -> None:
    await hosts(mx)
    await mx.mark_bad("one.example", note="refused")
    assert await hosts(mx) == ["two.example", "three.example", "one.example"]
    assert internet.dns.asked("example.org", "MX") == 1


async def test_a_mark_that_was_wrong_is_as_if_it_had_not_been(
    mx: MXCalculator, clock: FakeClock, store: MarksInMemory
) -> None:
    first = await mx.mark_bad("one.example", note="silent")
    await clock.advance(ONE_HOUR)
    second = await mx.mark_bad("one.example", note="silent")
    wrong = await mx.mark_bad("two.example", note="silent")
    by_hand = await mx.mark_bad("three.example", note="maintenance", by="oncall")
    assert (first.times, second.times) == (1, 2)
    await mx.take_back([first, wrong], note="all are silent")  # the first has ended, and another stands there
    assert {mark.host for mark in mx.marks} == {"one.example", "three.example"}
    await mx.take_back([second], note="all are silent")
    assert (mx.marks, tuple(store.kept.values())) == ((by_hand,), (by_hand,))
    assert not mx.is_returning("two.example")
    assert mx.good_at("two.example") is None
    assert [(await mx.mark_bad(host, note="refused")).times for host in ("one.example", "two.example")] == [2, 1]


async def test_a_mark_stays_where_the_store_will_not_take_it_back(mx: MXCalculator, store: MarksInMemory) -> None:
    wrong = await mx.mark_bad("one.example", note="silent")
    store.fails = QueueBusy("busy")
    with pytest.raises(QueueBusy):
        await mx.take_back([wrong], note="all are silent")
    assert mx.marks == (wrong,)
