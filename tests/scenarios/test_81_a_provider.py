"""Out through a provider: it wants a login, by password or by tokens that end, and has rules for who sends what."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.control.client import Refused
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.provider import Provider, TokenServer
from engine.settings.settings import OAuth, Route
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

NAME = "relay@shop.example"


class Upstream:
    """A provider, where its tokens come from, and a route that leads there."""

    def __init__(
        self, exchange: Exchange, temper: Provider, tokens: TokenServer, folder: Path, authority: bytes
    ) -> None:
        self.exchange = exchange
        self.temper = temper
        self.tokens = tokens
        self.authorities = folder / "authorities.pem"
        self.authorities.write_bytes(authority)
        self.refresh = folder / "refresh"
        self.refresh.write_text("1//first\n")
        tokens.refreshes["1//first"] = NAME

    @property
    def oauth(self) -> OAuth:
        return OAuth(
            token_endpoint=self.tokens.url, client_id="smarthost", refresh_token_file=self.refresh,
            ca_file=self.authorities,
        )  # fmt: skip

    def route(self, token_command: tuple[str, ...] = ()) -> Route:
        return Route(
            domain="*",
            host="smtp.provider.example",
            port=self.exchange.port,
            tls="required",
            username=NAME,
            token_command=token_command,
            oauth=None if token_command else self.oauth,
            ca_file=self.authorities,
        )


@pytest.fixture
async def upstream(internet: Internet, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Upstream]:
    tokens = TokenServer("login.provider.example", internet.certificates, clock)
    await tokens.start()
    internet.dns.add(tokens.host, "A", tokens.address)
    temper = Provider(tokens)
    exchange = await internet.host("smtp.provider.example", temper)
    yield Upstream(exchange, temper, tokens, tmp_path, internet.certificates.authority_pem)
    await tokens.stop()


async def said(relay: Relay) -> str:
    (entry,) = await relay.entries()
    assert entry.last is not None
    return entry.last.line


async def to_do(relay: Relay) -> str:
    """What is to be done about it, as Explain has it."""
    (explained,) = (await relay.client.explain("example.org")).explanations
    (todo,) = [fact.text for fact in explained.facts if fact.name == "to do"]
    return todo


async def test_a_token_is_got_once_and_used_until_shortly_before_its_end(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        for _ in range(3):
            await relay.send("bob@example.org", sender=NAME)
            await relay.settled()
        assert upstream.tokens.asked == {"refresh_token": 1}
        await relay.later(3600 - 61)
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        assert upstream.tokens.asked == {"refresh_token": 1}
        await relay.later(2)
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        assert upstream.tokens.asked == {"refresh_token": 2}
    assert [delivery.login for delivery in upstream.exchange.delivered] == [NAME] * 5


async def test_a_token_that_is_over_before_its_time_is_replaced_in_the_same_session(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        upstream.tokens.revoke()
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        assert upstream.exchange.messages == 2
        assert upstream.exchange.sessions == 2
        assert upstream.tokens.asked == {"refresh_token": 2}


async def test_a_token_never_shows_and_the_hosts_reason_does(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    upstream.temper.tokens = lambda name, token: False
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        assert await said(relay) == "535 5.7.3 Authentication unsuccessful"
        assert '[[route]] "*".username' in await to_do(relay)
        (ended, *_) = relay.engine.smarthost.ended
        transcript = "\n".join(line.text for line in ended.transcript.lines())
        assert "AUTH OAUTHBEARER ********" in transcript or "AUTH XOAUTH2 ********" in transcript
        assert '"status":"400"' in transcript
        assert not any(token in transcript for token in upstream.tokens._given)
        assert len(await relay.events("returned")) == 0
        assert (await relay.client.hosts()).total == 0  # a login is our fault, and no host's


async def test_mail_waits_while_there_is_no_token_and_nobody_is_dialled(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    upstream.refresh.write_text("1//revoked")
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        why = await said(relay)
        assert why.startswith("4.7.0 no token to log in with: the token endpoint https://login.provider.example:")
        assert why.endswith("answers 400: invalid_grant: Token has been expired or revoked.")
        assert upstream.exchange.sessions == 0
        upstream.refresh.write_text("1//first")  # as an operator mends it, without a restart
        await relay.later(400)
        assert upstream.exchange.messages == 1


async def test_a_refresh_token_that_comes_in_the_place_of_another_is_kept_over_a_restart(
    internet: Internet, clock: FakeClock, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.tokens.rotates = True
    for _ in range(2):
        async with relaying(internet, clock=clock, route=(upstream.route(),), spool=tmp_path / "spool") as relay:
            await relay.send("bob@example.org", sender=NAME)
            await relay.settled()
    assert upstream.tokens.asked == {"refresh_token": 2}
    (kept,) = (tmp_path / "spool" / "tokens").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    upstream.tokens.refreshes["1//second"] = NAME
    upstream.refresh.write_text("1//second")  # the operator has another: what came for the first counts no more
    async with relaying(internet, clock=clock, route=(upstream.route(),), spool=tmp_path / "spool") as relay:
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
    assert "1//second" not in upstream.tokens.refreshes
    assert upstream.exchange.messages == 3


@pytest.mark.parametrize("printed", ["{token}", '{{"access_token": "{token}", "expires_in": "3600"}}'])
async def test_a_command_may_print_the_token(
    internet: Internet, clock: FakeClock, upstream: Upstream, tmp_path: Path, printed: str
) -> None:
    text = printed.format(token=upstream.tokens.give(NAME))
    command = ("/bin/sh", "-c", f"echo run >> {tmp_path}/runs; echo '{text}'")
    async with relaying(internet, clock=clock, route=(upstream.route(token_command=command),)) as relay:
        await relay.send("bob@example.org", sender=NAME, times=2)
        await relay.settled()
        assert upstream.exchange.messages == 2
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no such account >&2; exit 3", "exit status 3: no such account"),
        ("echo", "what came is no token"),
        ("echo two words", "what came is no token"),
        ("echo '{}'", "it prints JSON without access_token"),
        ("yes | head -c 200000", "what came is no token"),
    ],
)
async def test_a_command_that_gives_no_token_is_told_of(
    internet: Internet, clock: FakeClock, upstream: Upstream, script: str, why: str
) -> None:
    route = upstream.route(token_command=("/bin/sh", "-c", script))
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org", sender=NAME)
        await relay.settled()
        assert why in await said(relay)
        assert upstream.exchange.sessions == 0


async def test_a_sender_that_is_not_the_logins_goes_back_with_the_providers_words(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        await relay.send("bob@example.org", sender="someone@else.example")
        await relay.settled()
        (event,) = await relay.events("returned")
        assert event.outcome is not None
        assert "SendAsDenied" in event.outcome.text
        assert event.outcome.enhanced == "5.2.252"
        with pytest.raises(Refused, match=r"SendAsDenied.* let it send as someone@else\.example, or .*\[\[rewrite\]\]"):
            await relay.client.explain("1")


async def test_a_provider_that_has_enough_for_the_day_is_left_alone_and_tried_again(
    internet: Internet, clock: FakeClock, upstream: Upstream
) -> None:
    upstream.temper.a_day = 2
    async with relaying(internet, clock=clock, route=(upstream.route(),)) as relay:
        await relay.send("bob@example.org", sender=NAME, times=4)
        await relay.settled()
        assert upstream.exchange.messages == 2
        assert len(await relay.entries()) == 2
        assert "[[limit]]" in await to_do(relay)
        upstream.temper.a_day = 10
        await relay.later(3600)
        assert upstream.exchange.messages == 4
