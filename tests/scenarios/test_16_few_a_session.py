"""16. A host that takes so many messages a session and then closes it is in order: the next one begins at once."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from engine.delivery.session_lengths import TRIAL_EVERY, SessionLengths
from engine.model.message import NewMessage
from engine.sandbox.exchanges import Action, Exchange
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Refusing
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay
from tests.waiting import until

MANY = 60


class Few(Healthy):
    """Takes `most` messages in a session, and then ends it: how is for those below."""

    def __init__(self, most: int) -> None:
        self.most = most

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "MAIL" and session.taken >= self.most:
            return await self.at_mail(session)
        if verb == "content" and session.taken + 1 >= self.most:
            return await self.at_last(session)
        return None

    async def at_mail(self, session: Peer) -> str | bytes | Action | None:
        return None

    async def at_last(self, session: Peer) -> str | bytes | Action | None:
        return None


class FarewellAtMail(Few):
    """421 at the next MAIL."""

    async def at_mail(self, session: Peer) -> str:
        return "421 4.4.5 enough for one session"


class DropAtMail(Few):
    """Hangs up on the next MAIL, with a reset."""

    async def at_mail(self, session: Peer) -> Action:
        return Action.DROP


class FarewellAtOnce(Few):
    """421 right after the reply to the message, in one segment, and hangs up."""

    async def at_last(self, session: Peer) -> str | bytes | Action | None:
        session._going_on = False
        return b"250 2.0.0 taken\r\n421 4.4.5 enough for one session\r\n"


class ClosesAtOnce(Few):
    """Hangs up right after the reply to the message, without a word."""

    async def at_last(self, session: Peer) -> str | bytes | Action | None:
        session._going_on = False
        return None


WAYS: tuple[Callable[[int], Few], ...] = (FarewellAtMail, DropAtMail, FarewellAtOnce, ClosesAtOnce)


def once_each(internet: Internet) -> bool:
    """Whether no message came twice: each of them bears a number."""
    seen = [delivery.content for delivery in internet.delivered]
    return len(seen) == len(set(seen))


async def hand_in(relay: Relay, domain: str, count: int) -> None:
    """Queue so many messages, each with a number of its own, all at once."""
    await asyncio.gather(
        *(
            relay.enqueue(
                NewMessage(
                    sender="ann@example.com",
                    recipients=(f"bob@{domain}",),
                    content=b"Subject: %d\r\n\r\nhello\r\n" % number,
                    origin="test",
                )
            )
            for number in range(count)
        )
    )


@pytest.mark.parametrize("most", [1, 5, 10])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_sixty_messages_go_within_seconds_and_none_goes_twice(
    internet: Internet, relay: Relay, way: Callable[[int], Few], most: int
) -> None:
    (exchange,) = await internet.add("few.example", mx=[(10, "mx.few.example", way(most))])
    loop = asyncio.get_running_loop()
    await hand_in(relay, "few.example", MANY)
    began = loop.time()
    await exchange.wait_for(MANY, seconds=30)  # without the clock having moved: a pause would have no end
    seconds = loop.time() - began
    print(f"{way.__name__} {most}: {MANY} messages in {seconds:.2f} s, {exchange.sessions} sessions")
    await relay.settled()
    assert await relay.entries() == ()
    assert exchange.messages == MANY
    assert once_each(internet)
    assert exchange.sessions <= MANY / most + 6  # those that were open before it was known, and the last
    assert await relay.events("deferred", "unreachable", "marked bad") == []


async def test_a_host_that_takes_more_than_it_did_is_found_out(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    few = FarewellAtMail(1)
    (exchange,) = await internet.add("few.example", mx=[(10, "mx.few.example", few)])
    await hand_in(relay, "few.example", 20)
    await exchange.wait_for(20)
    await relay.settled()
    few.most = 1000
    before = exchange.sessions
    await hand_in(relay, "few.example", 20)
    await exchange.wait_for(40)
    await relay.settled()
    assert exchange.sessions - before == 20  # as it is known
    await clock.advance(TRIAL_EVERY)
    before = exchange.sessions
    await hand_in(relay, "few.example", 60)
    await exchange.wait_for(100)
    await relay.settled()
    assert exchange.sessions - before < 15
    before = exchange.sessions
    await hand_in(relay, "few.example", 60)
    await exchange.wait_for(160)
    assert exchange.sessions - before < 15
    assert once_each(internet) is False  # the letters of each round bear the same numbers
    assert await relay.events("deferred", "unreachable") == []


async def test_it_is_we_who_say_quit_once_it_is_known(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("few.example", mx=[(10, "mx.few.example", FarewellAtMail(5))])
    await hand_in(relay, "few.example", 100)
    await exchange.wait_for(100)
    await relay.settled()
    last = [line for number, line in exchange.commands if number == exchange.sessions]
    assert last[-1] == "QUIT"
    assert sum(line.startswith("MAIL") for line in last) <= 5
    ended = max(relay.engine.smarthost.ended, key=lambda one: one.id)
    assert ended.result in ("5 sent, as many as mx.few.example takes in a session", f"{ended.bag.done} sent")


class Unhurried(FarewellAtMail):
    """Waits with its reply to MAIL until so many sessions are `awaited` at once, or for a second."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.awaited: Exchange | None = None

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "MAIL" and self.awaited is not None:
            with suppress(TimeoutError):
                await until(lambda: self.awaited is not None and self.awaited.most_open >= 2, 1)
        return await super().reply(session, verb, argument)


async def test_a_host_that_ends_its_sessions_with_421_keeps_its_connections(internet: Internet, relay: Relay) -> None:
    """One 421 may mean that there are too many connections; one after each so many messages does not."""
    host = Unhurried(3)
    (exchange,) = await internet.add("few.example", mx=[(10, "mx.few.example", host)])
    await hand_in(relay, "few.example", 100)
    await exchange.wait_for(100)
    await relay.settled()
    assert relay.engine.smarthost.limits_on("few.example") == ()
    exchange.most_open, host.awaited = 0, exchange
    await hand_in(relay, "few.example", 100)
    await exchange.wait_for(200)
    await relay.settled()
    assert exchange.most_open >= 2
    assert relay.engine.smarthost.limits_on("few.example") == ()


async def test_a_session_that_ends_before_it_took_anything_is_followed_by_a_pause(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("none.example", mx=[(10, "mx.none.example", FarewellAtMail(0))])
    await hand_in(relay, "none.example", 10)
    await relay.settled()
    assert exchange.sessions <= 2
    assert [one.name for one in relay.engine.smarthost.limits_on("none.example")] == ["blocked"]


class Offended(Refusing):
    """Hangs up after it has refused a recipient."""

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        return Action.DROP if verb == "RSET" else await super().reply(session, verb, argument)


async def test_a_host_that_hangs_up_on_what_it_refused_has_not_said_how_many_it_takes(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("proud.example", mx=[(10, "mx.proud.example", Offended({"nobody"}))])
    names = ["bob"] * 5 + ["nobody"] + ["bob"] * 20
    await asyncio.gather(
        *(
            relay.enqueue(
                NewMessage(
                    sender="", recipients=(f"{name}@proud.example",), content=b"S: x\r\n\r\nx\r\n", origin="test"
                )
            )
            for name in names
        )
    )
    await exchange.wait_for(25)  # without the clock having moved
    await relay.settled()
    assert await relay.entries() == ()
    assert relay.engine.smarthost._parts.session_lengths.most("mx.proud.example") is None
    assert exchange.sessions <= 5


async def test_what_is_remembered_of_hosts_is_bounded(clock: FakeClock) -> None:
    lengths = SessionLengths(clock)
    assert (lengths.begin("mx.example.org"), lengths.ended("mx.example.org", 5)) == (None, False)
    assert (lengths.begin("mx.example.org"), lengths.ended("mx.example.org", 5)) == (5, True)
    lengths.outlasted("mx.example.org", 5)
    assert lengths.most("mx.example.org") == 5
    await clock.advance(TRIAL_EVERY)
    assert [lengths.begin("mx.example.org") for _ in range(3)] == [None, 5, 5]  # one session is on trial
    lengths.outlasted("mx.example.org", 6)
    assert lengths.most("mx.example.org") is None
    for number in range(2000):
        lengths.ended(f"mx{number}.example.org", 1)
    assert len(lengths._known) == 1000
    assert lengths.most("mx1999.example.org") == 1


async def test_a_step_back_of_the_clock_puts_off_no_trial(clock: FakeClock) -> None:
    lengths = SessionLengths(clock)
    lengths.ended("mx.example.org", 5)
    await clock.set_by(-86_400)
    await clock.advance(TRIAL_EVERY)
    assert [lengths.begin("mx.example.org") for _ in range(2)] == [None, 5]
