"""14. A connection that runs dry waits a moment for more mail of its site, and is never in the way."""

import asyncio
from functools import partial

import pytest

from engine.delivery.check import Check
from engine.model.verbs import MarkBad, Resume, Suspend
from engine.sandbox.exchanges import Action
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Script
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.waiting import until

waiting = partial(relaying, idle=2.0)


async def idles(relay: Relay, count: int = 1) -> None:
    """Wait until so many connections are idle."""
    await until(lambda: sum(one.is_idle for one in relay.engine.smarthost.managed) == count)


async def test_a_connection_that_runs_dry_takes_what_comes_next(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock) as relay:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        for number in range(1, 6):
            await relay.send(f"u{number}@example.org")
            await internet.wait_for(number)
            await idles(relay)
            (shown,) = await relay.client.relayers()
            assert (shown.phase, shown.done, shown.stalling) == ("idle", number, False)
            await clock.advance(1.5)
        assert exchange.sessions == 1


async def test_it_says_quit_when_its_moment_is_over(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock) as relay:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        await relay.send("a@example.org")
        await idles(relay)
        await clock.advance(2)
        await until(lambda: not relay.engine.smarthost.managed)
        assert exchange.commands[-1][1] == "QUIT"
        (ended,) = await relay.client.relayers(ended=5)
        assert ended.result == "1 sent"


async def test_it_takes_mail_of_other_domains_of_its_site(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock) as relay:
        (exchange,) = await internet.add("one.example", mx=[(10, "mx.farm.example", Healthy())])
        for domain in ("two.example", "three.example"):
            await internet.add(domain, mx=[(10, "mx.farm.example")])
        await relay.send("a@one.example")
        await idles(relay)
        for number, domain in enumerate(("two.example", "three.example"), 2):
            await relay.send(f"b@{domain}")
            await internet.wait_for(number)
            await idles(relay)
        assert exchange.sessions == 1
        (shown,) = await relay.client.relayers()
        assert shown.domains == ("one.example", "two.example", "three.example")
        assert shown.site == "mx.farm.example"


@pytest.mark.parametrize("step", [0.0, -3600.0])
async def test_its_life_has_an_end_though_the_clock_is_set_back(
    internet: Internet, clock: FakeClock, step: float
) -> None:
    async with waiting(internet, clock=clock, connection_lifetime=5.0) as relay:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        for number in range(1, 8):
            await relay.send("a@example.org")
            await internet.wait_for(number)
            await until(lambda: all(one.is_idle for one in relay.engine.smarthost.managed))
            await clock.set_by(step if number == 2 else 0.0)
            await clock.advance(1.5)
        assert exchange.sessions == 2


async def test_it_carries_no_more_than_its_messages_however_they_come(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock, max_messages_per_connection=2) as relay:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        for number in range(1, 5):
            await relay.send("a@example.org")
            await internet.wait_for(number)
            await until(lambda: all(one.is_idle for one in relay.engine.smarthost.managed))
        assert exchange.sessions == 2


async def test_it_gives_its_place_to_another_site_that_waits(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock, max_connections=1) as relay:
        await internet.add("one.example", mx=[(10, "mx.one.example", Healthy())])
        await internet.add("two.example", mx=[(10, "mx.two.example", Healthy())])
        await relay.send("a@one.example")
        await idles(relay)
        await relay.send("b@two.example")
        await internet.wait_for(2)  # without the clock having moved
        ended = await relay.client.relayers(ended=5)
        assert "another site waits" in ended[-1].result


async def test_what_is_idle_ends_at_once_when_the_engine_stops(
    internet: Internet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.scenarios.relaying.DRAIN", 60.0)  # what was waited for would take as long
    async with waiting(internet, clock=clock) as relay:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        await relay.send("a@example.org")
        await idles(relay)
        begin = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begin < 20


class Leaving(Healthy):
    """Ends a connection when it is told to, with a word or without."""

    def __init__(self, word: bytes) -> None:
        self.last_word = word
        self.sessions: list[Peer] = []

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "connect":
            self.sessions.append(session)
        return await super().reply(session, verb, argument)  # type: ignore[return-value]

    async def leave(self) -> None:
        (session, *_) = self.sessions
        if self.last_word:
            session._writer.write(self.last_word)
        session._writer.close()
        await session._writer.wait_closed()


@pytest.mark.parametrize("word", [b"", b"421 4.4.2 idle for too long\r\n"])
async def test_a_peer_that_closes_an_idle_connection_defers_nothing(
    internet: Internet, clock: FakeClock, word: bytes
) -> None:
    async with waiting(internet, clock=clock) as relay:
        leaving = Leaving(word)
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", leaving)])
        await relay.send("a@example.org")
        await idles(relay)
        (idle,) = relay.engine.smarthost.managed
        await leaving.leave()
        await until(lambda: idle._session is None or not idle._session.usable)  # it has heard of it
        await relay.send("b@example.org", times=3)
        await exchange.wait_for(4)
        assert exchange.sessions in (2, 3)  # after the first as many as a site begins with
        assert await relay.events("deferred", "unreachable") == []
        await until(lambda: relay.engine.smarthost.limits_on("example.org") == ())


async def test_a_peer_that_hangs_up_on_the_next_command_defers_nothing_either(
    internet: Internet, clock: FakeClock
) -> None:
    async with waiting(internet, clock=clock) as relay:
        script = Script({"MAIL": [None, "421 4.4.2 idle for too long", None]})
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", script)])
        await relay.send("a@example.org")
        await idles(relay)
        await relay.send("b@example.org")
        await exchange.wait_for(2)
        assert exchange.sessions == 2
        assert await relay.events("deferred", "unreachable") == []


async def test_a_peer_that_drops_in_the_middle_of_the_next_message_is_left_alone(
    internet: Internet, clock: FakeClock
) -> None:
    async with waiting(internet, clock=clock) as relay:
        script = Script({"RCPT": [None, Action.DROP, None]})
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", script)])
        await relay.send("a@example.org")
        await idles(relay)
        await relay.send("b@example.org")
        await until(lambda: not relay.engine.smarthost.managed)
        assert exchange.sessions == 1
        (entry,) = await relay.entries()
        assert entry.attempts == 1


class OneEach(Healthy):
    """Takes one message a session, and then hangs up: with a word, or without."""

    def __init__(self, word: str | Action) -> None:
        self.word_ = word
        self._taken: set[Peer] = set()

    async def reply(self, session: Peer, verb: str, argument: str) -> str | Action | None:
        if verb == "content":
            self._taken.add(session)
        return self.word_ if verb == "MAIL" and session in self._taken else None


@pytest.mark.parametrize("word", ["421 4.4.5 one message is enough", Action.DROP])
async def test_a_host_that_takes_few_messages_a_session_costs_the_next_one_no_attempt(
    internet: Internet, relay: Relay, word: str | Action
) -> None:
    (exchange,) = await internet.add("stingy.example", mx=[(10, "mx.stingy.example", OneEach(word))])
    await relay.send("a@stingy.example", times=3)
    await relay.settled()
    for _ in range(3):
        assert {entry.attempts for entry in await relay.entries()} <= {0}
        await relay.later(31)  # it is not pressed, but not left alone for long either
    assert exchange.messages == 3
    assert await relay.events("deferred") == []


async def test_a_suspended_destination_gets_nothing_over_an_idle_connection(
    internet: Internet, clock: FakeClock
) -> None:
    async with waiting(internet, clock=clock) as relay:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        await relay.send("a@example.org")
        await idles(relay)
        await relay.client.ask(Suspend(destination="example.org", seconds=600, note="storm"))
        await relay.send("b@example.org")
        await relay.engine.smarthost.check_state()
        await clock.advance(3)
        await until(lambda: not relay.engine.smarthost.managed)
        assert internet.messages == 1
        await relay.client.ask(Resume(destination="example.org"))
        await internet.wait_for(2)


async def test_a_host_marked_bad_by_an_operator_gets_nothing_over_an_idle_connection(
    internet: Internet, clock: FakeClock
) -> None:
    async with waiting(internet, clock=clock) as relay:
        await internet.add("example.org", mx=[(10, "mx1.example.org", Healthy()), (20, "mx2.example.org", Healthy())])
        await relay.send("a@example.org")
        await idles(relay)
        await relay.client.ask(MarkBad(host="mx1.example.org", seconds=600, note="maintenance"))
        await relay.send("b@example.org")
        await internet.wait_for(2)
        assert [each.host for each in internet.delivered] == ["mx1.example.org", "mx2.example.org"]
        assert await relay.events("deferred", "unreachable") == []


async def test_an_idle_connection_wakes_nobody(internet: Internet, clock: FakeClock) -> None:
    async with waiting(internet, clock=clock) as relay:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        await relay.send("a@example.org")
        await idles(relay)
        checks = 0
        right = relay.engine.smarthost._check

        async def counted() -> Check:
            nonlocal checks
            checks += 1
            return await right()

        relay.engine.smarthost._check = counted  # type: ignore[method-assign]
        smarthost = relay.engine.smarthost
        await until(lambda: not smarthost._checks and (smarthost.next_check or 0.0) > clock.now())
        for _ in range(20):  # each goes there and back through the same loop
            await relay.client.health()
        assert checks <= 1


class NotFrom(Healthy):
    """Ends the session when one sender is named, whatever came before."""

    def __init__(self, sender: str) -> None:
        self.sender = sender

    async def reply(self, session: Peer, verb: str, argument: str) -> str | Action | None:
        is_it = verb == "MAIL" and self.sender in argument
        return "421 4.7.0 this sender has sent too much" if is_it else None


async def test_a_message_that_ends_every_session_is_charged_with_it_though_others_always_go_before(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock) as relay:
        await internet.host("mx.farm.example", NotFrom("bad@example.com"))
        for domain in ("a.example", "b.example"):
            await internet.add(domain, mx=[(10, "mx.farm.example")])
            await relay.send(f"x@{domain}")
            await relay.settled()
        await relay.client.ask(Suspend(destination="*", seconds=60, note="so that all are due at once"))
        await relay.send("p@b.example", sender="bad@example.com")
        await relay.send("y@a.example", times=3)
        await relay.client.ask(Resume(destination="*"))
        await relay.settled()
        for _ in range(8):
            await relay.send("y@a.example", times=3)
            await relay.later(31)
        (entry,) = await relay.entries("domain=b.example")
        assert entry.attempts == 1
        assert entry.last is not None
        assert entry.last.code == 421
