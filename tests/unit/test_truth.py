"""What is shown of waiting mail is what the engine then does with it, on random queues."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dns.asyncresolver
import pytest

from engine.control.colleagues import Colleagues
from engine.control.feed import EventLog
from engine.control.judge import Judge
from engine.control.relay import Relay
from engine.delivery.condition import Verdict
from engine.dns.mx import AllMarkedBad, Exchange, MXCalculator
from engine.model.claim import ROOM
from engine.model.destination import RELAY, Override, Suspension
from engine.model.filter import Filter, Term
from engine.model.message import Entry
from engine.model.outcome import Outcome
from engine.model.reason import reason_of, reason_of_line
from engine.queue.untried import HOSTS_BAD, NOT_TRIED
from tests.unit.sqlite.support import SqliteSpool, opened

HOSTS = [f"mx{number}.example" for number in range(5)]
DESTINATIONS = [f"d{number}.example" for number in range(9)]
REPLIES = [
    Outcome.of_reply(451, "4.7.1 Greylisted, try again in 300 s", host=HOSTS[0], phase="RCPT"),
    Outcome.of_reply(452, "4.2.2 <bob@d1.example> over quota", host=HOSTS[1], phase="RCPT"),
    Outcome.transient("connection refused by [192.0.2.1]:25", enhanced="4.4.1", host=HOSTS[2], phase="connecting"),
]


class World:
    """A queue in which everything that keeps mail from going has been laid upon it at random, and those who judge."""

    def __init__(self, spool: SqliteSpool, seed: int) -> None:
        self.spool = spool
        self.queue = spool.queue
        self.clock = spool.clock
        self.draw = random.Random(seed)
        self.mx = MXCalculator(dns.asyncresolver.Resolver(configure=False), clock=spool.clock, marks=spool.queue.marks)
        self.smarthost = SimpleNamespace(draining=False, limits_on=lambda *_, **__: (), room=lambda: ROOM, managed={})

    def later(self, most: float = 7200.0) -> float:
        return self.clock.now() + self.draw.choice([60.0, 90.5, 300.0, 900.0, most]) * self.draw.uniform(0.1, 1.0)

    async def fill(self) -> None:
        """Mail, some of it tried before, for destinations with one to three exchanges."""
        draw = self.draw
        for name in DESTINATIONS:
            hosts = draw.sample(HOSTS, draw.randint(1, 3))
            for number in range(draw.randint(0, 4)):
                await self.spool.add(f"r{number}@{name}", f"s{number}@{draw.choice(DESTINATIONS)}")
            site = " ".join(sorted(hosts)) if draw.random() < 0.7 else None
            await self.queue.standing.note_destination(name, hosts, site)
        await self.clock.advance(draw.uniform(0, 100))
        for name in DESTINATIONS:
            for claim in await self.queue.claims.claim(name, draw.randint(0, 3), 1):
                await self.spool.settle(claim, draw.choice(REPLIES), after=draw.choice([-5, draw.uniform(0, 4000)]))
        for name in draw.sample(DESTINATIONS, 3):  # under way, some of it for the second time
            await self.queue.claims.claim(name, draw.randint(1, 2), 7)

    async def steer(self) -> None:
        """Blocks, suspensions, marks, orders, rules and overrides."""
        draw, queue = self.draw, self.queue
        for name in DESTINATIONS:
            if draw.random() < 0.3:
                await queue.standing.block(name, self.later(), draw.choice(REPLIES).line, failed=draw.random() < 0.5)
            if draw.random() < 0.2:
                await queue.standing.suspend(self.suspension(name))
            if draw.random() < 0.1:
                now = self.clock.now()
                host = draw.choice(HOSTS)
                one = Override(destination=name, host=host, port=25, since=now, until=now + 1e6, by="ann", note="")
                await queue.standing.set_override(one)
        if draw.random() < 0.2:
            await queue.standing.suspend(self.suspension(RELAY))
        for host in HOSTS:
            by = draw.choice(["", "engine", "oncall", "oncall"])
            if by:
                await self.mx.mark_bad(host, seconds=self.later() - self.clock.now(), note="why", by=by)
        for entry in await self.spool.entries():
            named = Filter.of_ids([f"{entry.message}.{entry.number}"])
            match draw.randint(0, 13):
                case 0:
                    await queue.orders.hold(named, "ann", "look")
                case 1:
                    await queue.orders.give_up("bounce", named, "ann", "gone", self.later() - self.clock.now())
                case 2:
                    await queue.orders.give_up("drop", named, "bea", "", self.later() - self.clock.now())
                case 3:
                    await queue.orders.retry(named, "ann")
                case 4:
                    await queue.orders.postpone(named, "ann", self.later())
        if draw.random() < 0.4:
            await queue.standing.add_rule(
                Filter.parse(f"domain={draw.choice(DESTINATIONS)}"), self.later(), "cy", "storm"
            )
        await self.clock.advance(draw.uniform(0, 30))

    def suspension(self, name: str) -> Suspension:
        return Suspension(destination=name, since=self.clock.now(), until=self.later(), by="oncall", note="storm")

    def judge(self) -> Judge:
        parts = SimpleNamespace(
            queue=self.queue, smarthost=self.smarthost, mx=self.mx, clock=self.clock, events=EventLog(self.clock),
            colleagues=Colleagues(self.queue),
        )  # fmt: skip
        return Judge(cast("Relay", parts))

    async def tidy(self) -> None:
        """What the relay does at each check before it sends."""
        while claims := await self.queue.claims.overdue(100):
            for claim in claims:
                await self.spool.settle(claim, Outcome.permanent("expired", enhanced="5.4.7"))

    async def verdicts(self) -> dict[str, tuple[Entry, Verdict]]:
        judge = self.judge()
        return {f"{row.message}.{row.number}": (row, judge.verdict(row)) for row in await self.spool.entries()}

    async def sent(self) -> set[str]:
        """The entries that the relay sends now: claimed, and a host may be tried. They are given back."""
        claims = []
        for due in await self.queue.claims.due_sites(1000):
            claims += await self.queue.claims.claim_site(due.site, 1000, 1)
        found = set()
        for claim in claims:
            hosts = (await self.queue.listing.destination(claim.destination)).exchanges
            exchanges = [Exchange(host=host, preference=0, mark=self.mx.mark(host)) for host in hosts]
            try:
                if exchanges:
                    self.mx.allowed(claim.destination, exchanges)
            except AllMarkedBad:
                continue
            found |= {f"{claim.message}.{entry.number}" for entry in claim.entries}
        await self.queue.claims.put_back(claims, "only a look")
        return found


async def made(spool: SqliteSpool, seed: int, later: float = 0.0) -> World:
    """A world whose mail is so many seconds old when it is steered."""
    world = World(spool, seed)
    await world.fill()
    await spool.clock.advance(later)
    await world.steer()
    await world.tidy()
    return world


SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_ready_is_sent_and_nothing_else(tmp_path: Path, seed: int) -> None:
    async with opened(tmp_path, give_up_after=6000.0) as spool:
        world = await made(spool, seed)
        judged = await world.verdicts()
        ready = {name for name, (_, verdict) in judged.items() if verdict.condition == "ready"}
        assert ready == await world.sent()
        totals = await spool.queue.listing.totals()
        assert totals.ready == len(ready)
        assert totals.ready <= totals.due
        for row, verdict in judged.values():
            assert (row.state == "relaying") == (verdict.condition == "relaying")


@pytest.mark.parametrize("later", [0.0, 5900.0, 6100.0])
@pytest.mark.parametrize("seed", SEEDS)
async def test_mail_is_sent_from_its_next_try_on_and_not_before(tmp_path: Path, seed: int, later: float) -> None:
    """Also mail that has had its time, or has it before that: what has no next try is returned instead."""
    async with opened(tmp_path, give_up_after=6000.0) as spool:
        world = await made(spool, seed, later)
        judged = await world.verdicts()
        times = {verdict.next_try for _, verdict in judged.values() if verdict.next_try is not None}
        times |= {row.expires for row, _ in judged.values()}  # when the relay looks for what is over
        looked = sorted(time for time in times if time > world.clock.now())
        for at in [moment for time in looked for moment in (time - 0.01, time)]:
            await world.clock.advance(max(0.0, at - world.clock.now()))
            await world.tidy()
            expected = {
                name
                for name, (row, verdict) in judged.items()
                if verdict.next_try is not None and verdict.next_try <= at and row.state != "relaying"
            }
            assert await world.sent() == expected


@pytest.mark.parametrize("seed", SEEDS)
async def test_destinations_and_bad_hosts_say_when_the_first_of_their_mail_is_tried(tmp_path: Path, seed: int) -> None:
    async with opened(tmp_path) as spool:
        world = await made(spool, seed)
        judged = await world.verdicts()
        _, rows = await spool.queue.listing.destinations("", "name", 0, 100)
        judge, first = world.judge(), {}
        for row in rows:
            page = judge.destination(row)
            waiting = [one for entry, one in judged.values() if entry.destination == row.name and
                       entry.state == "waiting"]  # fmt: skip
            times = [one.next_try for one in waiting if one.next_try is not None]
            assert len(times) == len(waiting) == row.waiting
            first[row.name] = page.next_try
            assert page.next_try == min(times, default=None)
            if waiting and page.condition != "relaying":
                assert page.condition in {one.condition for one in waiting}
        bad = [mark.host for mark in world.mx.marks]
        for held in await spool.queue.listing.held_back(bad):
            stuck = [first[row.name] for row in rows if held.host in row.exchanges and set(row.exchanges) <= set(bad)]
            assert judge.next_try(held) == min((one for one in stuck if one is not None), default=None)


@pytest.mark.parametrize("seed", SEEDS)
async def test_reasons_count_all_that_waits_each_once_and_their_filters_name_it(tmp_path: Path, seed: int) -> None:
    async with opened(tmp_path) as spool:
        world = await made(spool, seed)
        judged = await world.verdicts()
        totals = await spool.queue.listing.totals()
        found = await spool.queue.listing.reasons(1000)
        assert sum(one.entries for one in found) == totals.waiting + totals.held
        named: list[str] = []
        for one in found:
            mail = Filter(terms=(Term(field="group", op="=", value=one.group),))
            window = await spool.queue.listing.window(mail, "id", 0, 1000)
            assert (window.total, len({row.message for row in window.rows})) == (one.entries, one.messages)
            assert len({row.destination for row in window.rows}) == one.destinations
            assert min(row.arrived for row in window.rows) == one.oldest
            assert (await spool.queue.listing.select(mail)).recipients == one.entries
            others = await spool.queue.listing.window(Filter.parse(f"!{mail}"), "id", 0, 1000)
            assert others.total + window.total == len(judged)
            ids = [f"{row.message}.{row.number}" for row in window.rows]
            named += ids
            for name in ids:
                row, verdict = judged[name]
                if row.last is None and row.state == "waiting":
                    assert expected(one.group) in ("", verdict.condition)
        assert len(named) == len(set(named))


def expected(why: str) -> str:
    """The condition of mail that was never tried for this reason; "": one of several."""
    if why.startswith(("suspended by", "the whole relay is suspended")):
        return "suspended"
    if why.startswith("postponed by"):
        return "not due"
    return {NOT_TRIED: "ready", HOSTS_BAD: "hosts bad"}.get(why, "")


async def test_a_jam_behind_one_reply_stands_under_it_whole_and_is_acted_on_whole(tmp_path: Path) -> None:
    """141 wait, one of them was tried: the destination is blocked for what that one was told."""
    async with opened(tmp_path) as spool:
        reply = Outcome.of_reply(421, "4.7.0 too busy for 192.0.2.7, ticket 99A0012", host="mx.d.example", phase="MAIL")
        for number in range(141):
            await spool.add(f"r{number}@d.example")
        (claim,) = await spool.claim("d.example", limit=1)
        await spool.settle(claim, reply, after=300)
        await spool.queue.standing.block("d.example", spool.clock.now() + 300, reply.line)
        (one,) = await spool.queue.listing.reasons(10)
        assert one.group == "421 4.7.0 too busy for <ip>, ticket <id>"
        assert (one.entries, one.messages, one.destinations, one.busiest) == (141, 141, 1, ("d.example",))
        assert one.example == reply
        named = Filter(terms=(Term(field="group", op="=", value=one.group),))
        assert (await spool.queue.orders.hold(named, "ann", "look")).recipients == 141
        assert (await spool.queue.listing.totals()).held == 141
        held = {one.group: one.entries for one in await spool.queue.listing.reasons(10)}
        assert held == {"held by ann": 140, "421 4.7.0 too busy for <ip>, ticket <id>": 1}


async def test_a_retry_of_a_jam_counts_all_of_it_though_the_first_of_it_unblocks_its_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 10)
    async with opened(tmp_path) as spool:
        for number in range(35):
            await spool.add(f"r{number}@d.example")
        await spool.queue.standing.block(
            "d.example", spool.clock.now() + 300, "4.4.1 connection refused by [192.0.2.1]:25"
        )
        named = Filter.parse('group="4.4.1 connection refused by [<ip>]:<n>"')
        assert (await spool.queue.orders.retry(named, "ann")).recipients == 35
        assert (await spool.queue.listing.totals()).ready == 35


async def test_status_and_listing_agree_on_the_number_of_destinations(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await made(spool, 3)
        total, rows = await spool.queue.listing.destinations("", "name", 0, 100)
        totals = await spool.queue.listing.totals()
        assert totals.known == total == len(rows)
        assert totals.destinations == sum(bool(row.waiting + row.held + row.relaying) for row in rows)


async def test_mail_whose_time_is_over_before_its_next_try_has_none(tmp_path: Path) -> None:
    async with opened(tmp_path, give_up_after=100.0) as spool:
        world = World(spool, 1)
        await spool.add("bob@d.example")
        (claim,) = await spool.claim("d.example")
        await spool.settle(claim, REPLIES[2], after=1)
        await spool.queue.standing.block("d.example", spool.clock.now() + 300, "4.4.1 refused")
        ((_, verdict),) = (await world.verdicts()).values()
        assert (verdict.condition, verdict.next_try) == ("blocked", None)
        assert verdict.why == "4.4.1 refused; its time is over before that: it will be returned"
        await spool.clock.advance(100)
        ((_, verdict),) = (await world.verdicts()).values()
        assert verdict.condition == "to be bounced"
        assert len(await spool.queue.claims.overdue(9)) == 1


async def test_mail_that_was_never_tried_has_one_more_try_after_its_time(tmp_path: Path) -> None:
    async with opened(tmp_path, give_up_after=100.0) as spool:
        world = World(spool, 1)
        now = spool.clock.now()
        await spool.add("bob@d.example")
        await spool.queue.standing.block("d.example", now + 300, "4.4.1 refused", failed=True)
        await spool.clock.advance(200)
        ((_, verdict),) = (await world.verdicts()).values()
        assert (verdict.condition, verdict.next_try) == ("blocked", now + 300)
        assert verdict.why == "4.4.1 refused; its time is over: it has one more try"
        assert await spool.queue.claims.overdue(9) == []
        await spool.clock.advance(100)
        ((_, verdict),) = (await world.verdicts()).values()
        assert (verdict.condition, verdict.why) == ("ready", "its time is over: it has one more try")
        assert await world.sent() == {"1.1"}
        # Other mail to it is tried first, in its stead, and no connection can be had.
        await spool.queue.standing.block("d.example", now + 900, "4.4.1 refused", failed=True)
        ((_, verdict),) = (await world.verdicts()).values()
        assert (verdict.condition, verdict.next_try) == ("to be bounced", None)
        assert len(await spool.queue.claims.overdue(9)) == 1


async def test_nothing_is_tried_by_a_relay_that_is_about_to_stop(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        world = World(spool, 1)
        await spool.add("bob@d.example")
        world.smarthost.draining = True
        ((_, verdict),) = (await world.verdicts()).values()
        assert (verdict.condition, verdict.next_try) == ("draining", None)


def test_reasons_of_a_line_are_those_of_its_outcome() -> None:
    texts = ["busy", "", "4.2.1 <a@b.example> locked, ticket 77A41B", "connection refused by [192.0.2.1]:25", "550 x"]
    outcomes = [Outcome.of_reply(code, text) for code in (250, 421, 450, 550) for text in texts]
    outcomes += [Outcome.transient(text, enhanced="4.4.1") for text in texts]
    outcomes += REPLIES
    assert [reason_of_line(one.line) for one in outcomes] == [reason_of(one) for one in outcomes]
