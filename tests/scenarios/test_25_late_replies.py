"""25. What a session comes to does not depend on whether a reply comes a moment sooner or later."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.delivery.relayer import ManagedRelayer
from engine.model.outcome import Outcome
from engine.sandbox.certificates import Certificates
from engine.sandbox.exchanges import Action, Exchange, Temper
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.smtpclient.dialler import TcpDialler
from engine.smtpclient.wire import _Protocol
from tests.scenarios.relaying import Relay
from tests.scenarios.test_session_outcomes import MAIL, session_with
from tests.waiting import until

BYE = b"421 4.4.5 enough\r\n"
TWO = replace(MAIL, recipients=("known@x.example", "nobody@x.example"))


async def serve(temper: Temper, *, pipelining: bool = True) -> Exchange:
    if not pipelining:
        temper.extensions = tuple(line for line in temper.extensions if line != "PIPELINING")
    exchange = Exchange("mx.example.org", temper, clock=SystemClock(), certificates=Certificates())
    await exchange.start()
    return exchange


class Farewell(Healthy):
    """Takes one message, and then says 421: right behind the reply to it, or when it is asked for the next."""

    def __init__(self, *, early: bool, closes: bool) -> None:
        self.early = early
        self.closes = closes

    async def reply(self, session: Peer, verb: str, argument: str) -> bytes | Action | None:
        if verb == "content" and self.early:
            session._going_on = not self.closes
            return b"250 2.0.0 taken\r\n" + BYE
        if verb == "MAIL" and session.taken:
            return BYE
        return None


@pytest.mark.parametrize("pipelining", [True, False], ids=["in one flight", "one by one"])
async def test_a_farewell_is_the_same_before_the_next_command_as_after_it(pipelining: bool) -> None:
    came: list[Outcome] = []
    for early, closes in ((True, True), (True, False), (False, False)):
        exchange = await serve(Farewell(early=early, closes=closes), pipelining=pipelining)
        session = session_with(exchange)
        await session.open(TcpDialler())
        (first,) = await session.deliver(MAIL)
        assert first.kind == "delivered"
        if early:
            await until(lambda s=session, c=closes: not s.usable if c else s._wire.has_surplus)  # type: ignore[misc]
        came += await session.deliver(MAIL)
        assert not session.usable
        assert not session.pipelining_failed
        await exchange.stop()
    assert {(one.code, one.enhanced, one.text, one.phase, one.kind) for one in came} == {
        (421, "4.4.5", "enough", "MAIL", "transient")
    }


class Hanging(Healthy):
    """Hangs up without a word on the MAIL after so many messages."""

    def __init__(self, after: int) -> None:
        self.after = after

    async def reply(self, session: Peer, verb: str, argument: str) -> Action | None:
        return Action.DROP if verb == "MAIL" and session.taken >= self.after else None


@pytest.mark.parametrize(("after", "stumbled"), [(0, True), (1, False)])
async def test_a_host_that_hangs_up_between_two_messages_can_pipeline_all_the_same(after: int, stumbled: bool) -> None:
    exchange = await serve(Hanging(after))
    session = session_with(exchange)
    await session.open(TcpDialler())
    for _ in range(after):
        await session.deliver(MAIL)
    (lost,) = await session.deliver(MAIL)
    assert (lost.kind, lost.cause) == ("transient", "lost")
    assert session.pipelining_failed == stumbled
    await exchange.stop()


class OneBehind(Temper):
    """Says twice, the second time late, that it has taken the first message: each reply is then to the last command."""

    extensions = ("SIZE 1000000", "8BITMIME")

    def __init__(self) -> None:
        self.behind: list[str] = []

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if not session.taken or verb not in ("MAIL", "RCPT", "DATA", "RSET"):
            return None
        right = {"MAIL": "250 2.1.0 ok", "DATA": "354 go", "RSET": "250 2.0.0 ok"}
        self.behind.append(right.get(verb) or ("550 5.1.1 unknown" if "nobody" in argument else "250 2.1.5 ok"))
        return "250 2.0.0 taken, again" if verb == "MAIL" else self.behind[-2]


@pytest.mark.parametrize(
    "recipients", [TWO.recipients, TWO.recipients[::-1], ("known@x.example",), ("nobody@x.example",)]
)
async def test_no_verdict_is_taken_from_replies_that_are_to_other_commands(recipients: tuple[str, ...]) -> None:
    exchange = await serve(OneBehind())
    session = session_with(exchange)
    await session.open(TcpDialler())
    assert (await session.deliver(MAIL))[0].kind == "delivered"
    outcomes = await session.deliver(replace(MAIL, recipients=recipients))
    assert [outcome.kind for outcome in outcomes] == ["transient"] * len(recipients)
    assert not session.usable
    await exchange.stop()


# -- whoever is called away when the reply comes ----------------------------------------------------------------------


def when_taken(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Call `then` at the moment the reply to a message has come, before anybody has read it."""
    right = _Protocol.data_received

    def received(self: _Protocol, data: bytes) -> None:
        right(self, data)
        if b"taken as" in data:
            then()

    monkeypatch.setattr(_Protocol, "data_received", received)


async def test_whoever_is_cancelled_when_the_reply_has_come_ends_and_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = await serve(Healthy())
    delivering: list[asyncio.Task[list[Outcome]]] = []
    when_taken(monkeypatch, lambda: delivering[0].cancel())
    session = session_with(exchange)
    await session.open(TcpDialler())
    delivering.append(asyncio.create_task(session.deliver(MAIL)))
    await asyncio.wait(delivering)
    await exchange.stop()
    assert delivering[0].cancelled()
    assert session.in_hand is not None
    assert [outcome.kind for outcome in session.in_hand] == ["delivered"]
    assert not session.usable


async def test_a_connection_that_is_closed_when_the_reply_has_come_has_delivered_and_is_closed(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    smarthost = relay.engine.smarthost
    closed: list[ManagedRelayer] = []

    def close() -> None:
        (relayer,) = smarthost.managed
        assert relayer.close("ann")
        smarthost._live[relayer].cancel()
        closed.append(relayer)

    when_taken(monkeypatch, close)
    await relay.send("bob@example.org")
    await exchange.wait_for(1)
    await until(lambda: bool(closed) and closed[0].ended is not None)
    await relay.settled()
    assert closed[0].result == "closed by ann"
    assert await relay.entries() == ()
    assert exchange.messages == 1
    (delivered,) = await relay.events("delivered")
    assert delivered.outcome is not None
    assert not delivered.outcome.may_duplicate
    assert await relay.events("deferred") == []
