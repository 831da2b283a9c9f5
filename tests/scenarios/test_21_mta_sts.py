"""21. MTA-STS (RFC 8461): a domain's policy says which hosts take its mail, and that they must be proved."""

import asyncio
from pathlib import Path

import dns.asyncresolver
import pytest
from msgspec.structs import replace

from engine.dns.lookups import Lookups
from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.policies import Answer
from engine.sandbox.tempers import Encrypted, Healthy
from engine.settings.settings import TlsRules
from engine.tls.mta_sts import LARGEST, PolicyError
from engine.tls.policy_files import HttpsFetch
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.scenarios.securing import level, rules, said, why_kept

__all__ = ["rules"]

ENFORCE = "version: STSv1\nmode: enforce\nmx: mx1.example.org\nmax_age: 604800\n"
TESTING = ENFORCE.replace("enforce", "testing")


async def test_an_enforced_policy_wants_its_host_verified_and_the_transcript_says_why(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Encrypted("good"))])
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        assert internet.delivered[0].tls
        assert "TLS verified is required: MTA-STS policy of example.org (enforce)" in await said(relay)
        assert internet.policies.asked["example.org"] == 1


@pytest.mark.parametrize(
    ("temper", "code"),
    [(Encrypted("self-signed"), "4.7.5"), (Encrypted("wrong name"), "4.7.5"), (Encrypted("expired"), "4.7.5"),
     (Encrypted("broken"), "4.7.5"), (Healthy(), "4.7.4")],
)  # fmt: skip
async def test_under_an_enforced_policy_mail_waits_for_a_host_that_is_proved(
    internet: Internet, clock: FakeClock, rules: TlsRules, temper: Temper, code: str
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", temper)])
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        why = await why_kept(relay)
        assert why.startswith(code)
        assert "MTA-STS policy of example.org (enforce)" in why


async def test_a_policy_that_a_host_does_not_meet_spoils_it_for_nobody_else(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    """Anybody may point a domain with a policy at another's host."""
    await internet.add(
        "example.org", mx=[(10, "mx1.example.org", Encrypted("self-signed")), (20, "mx2.example.org", Healthy())]
    )
    internet.dns.add("evil.example", "MX", "10 mx1.example.org.")
    await internet.policy("evil.example", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("eve@evil.example")
        await relay.settled()
        assert "MTA-STS policy of evil.example (enforce)" in await why_kept(relay)
        assert relay.engine.mx.marks == ()
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        assert internet.delivered[0].host == "mx1.example.org"


async def test_a_host_that_the_policy_does_not_name_is_not_tried(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add("example.org", mx=[(10, "mx.evil.example", Encrypted("good"))])
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert await why_kept(relay) == "4.7.5 MTA-STS policy of example.org (enforce) does not name mx.evil.example"
        assert internet.exchange("mx.evil.example").sessions == 0
        assert relay.engine.mx.marks == ()
        # The domain moves: its new policy is met at the next attempt.
        await internet.policy("example.org", ENFORCE + "mx: *.evil.example\n", id="2")
        relay.engine.mx._lookups._resolver.cache.flush()
        await relay.later(400)
        assert internet.messages == 1


async def test_of_several_hosts_those_that_the_policy_names_are_tried(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add(
        "example.org", mx=[(10, "mx.evil.example", Encrypted("good")), (20, "mx1.example.org", Encrypted("good"))]
    )
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        assert internet.delivered[0].host == "mx1.example.org"


@pytest.mark.parametrize(
    ("host", "temper", "remark"),
    [
        ("mx1.example.org", Encrypted("good"), ""),
        ("mx9.example.org", Encrypted("good"), " does not name mx9.example.org"),
        ("mx1.example.org", Encrypted("self-signed"), ": the certificate does not lead to a trusted one"),
        ("mx1.example.org", Encrypted("expired"), ": the certificate does not lead to a trusted one"),
        ("mx1.example.org", Encrypted("wrong name"), ": the certificate is for wrong-name.example, not for mx1"),
        ("mx1.example.org", Healthy(), "\n"),
    ],
)
async def test_what_a_policy_in_testing_would_have_kept_is_remarked_on_and_goes(
    internet: Internet, clock: FakeClock, rules: TlsRules, host: str, temper: Temper, remark: str
) -> None:
    await internet.add("example.org", mx=[(10, host, temper)])
    await internet.policy("example.org", TESTING)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        transcript = await said(relay)
        assert f"MTA-STS policy of example.org (testing){remark}" in transcript
        assert ("the certificate" in transcript) == ("the certificate" in remark)


async def test_a_policy_outlives_a_restart_and_the_loss_of_its_record_and_server(
    internet: Internet, clock: FakeClock, rules: TlsRules, tmp_path: Path
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Encrypted("good"))])
    await internet.policy("example.org", ENFORCE)
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, tls=rules, spool=spool) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
    # Someone who can keep us from DNS and the policy server strips STARTTLS as well.
    internet.dns.remove("_mta-sts.example.org")
    await internet.policies.stop()
    await internet.exchange("mx1.example.org").become(Healthy())
    await clock.advance(604_000)
    async with relaying(internet, clock=clock, tls=rules, spool=spool) as relay:
        await relay.send("eve@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert "MTA-STS policy of example.org (enforce)" in entry.last.text
        assert internet.messages == 1
        await relay.later(3600)  # its own end
        assert internet.messages == 2


async def test_a_policy_is_fetched_again_when_its_record_says_so_and_once_a_day(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Encrypted("good"))])
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        book = relay.engine.tls._policies
        assert book is not None
        first = await book.of("example.org")
        assert first is not None
        assert await book.of("example.org") == first
        assert internet.policies.asked["example.org"] == 1
        await clock.advance(86_500)
        assert await book.of("example.org") == first  # nobody waits for the renewal
        await asyncio.gather(*book._under_way.values())
        renewed = await book.of("example.org")
        assert renewed is not None
        assert renewed.expires == first.expires + 86_500
        await internet.policy("example.org", TESTING, id="2")
        relay.engine.mx._lookups._resolver.cache.flush()
        changed = await book.of("example.org")
        assert changed is not None
        assert (changed.mode, changed.id) == ("testing", "2")
        assert internet.policies.asked["example.org"] == 3


@pytest.mark.parametrize("max_age", [3600, 86_400])
async def test_a_policy_of_a_day_or_less_is_renewed_before_it_ends(
    internet: Internet, clock: FakeClock, rules: TlsRules, max_age: int
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx1.example.org", Encrypted("good"))])
    await internet.policy("example.org", ENFORCE.replace("604800", str(max_age)))
    async with relaying(internet, clock=clock, tls=rules) as relay:
        for _ in range(6):
            await relay.send("bob@example.org")
            await relay.settled()
            await clock.advance(max_age / 6)
        # It was first fetched a whole max_age ago. Someone now keeps us from its server and strips STARTTLS as well.
        await internet.policies.stop()
        await exchange.become(Healthy())
        await clock.advance(1)
        await relay.send("eve@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert "MTA-STS policy of example.org (enforce)" in entry.last.text
        assert internet.messages == 6


async def test_those_who_want_a_policy_at_the_same_time_fetch_it_once(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.policy("example.org", ENFORCE)
    internet.policies.behave("example.org", Answer(body=ENFORCE.encode(), pause=0.05))
    async with relaying(internet, clock=clock, tls=rules) as relay:
        book = relay.engine.tls._policies
        assert book is not None
        found = await asyncio.gather(*(book.of("example.org") for _ in range(20)))
        assert {policy.mode for policy in found if policy} == {"enforce"}
        assert internet.policies.asked["example.org"] == 1


BODY = ENFORCE.encode()
NOT_HAD = [
    Answer(body=BODY, status=404),
    Answer(body=BODY, status=301, location="https://mta-sts.example.org/elsewhere"),
    Answer(body=BODY, type="text/html"),
    Answer(body=BODY + b"#" * LARGEST),
    Answer(body=b"mode: enforce\n"),
    Answer(body=b"\xff\xfe"),
    Answer(body=BODY, certificate="self-signed"),
    Answer(body=BODY, certificate="wrong name"),
    Answer(body=BODY, certificate="expired"),
]


@pytest.mark.parametrize("answer", NOT_HAD, ids=lambda answer: f"{answer.status} {answer.type} {answer.certificate}")
async def test_a_policy_that_cannot_be_had_is_none_and_is_not_asked_for_at_every_turn(
    internet: Internet, clock: FakeClock, rules: TlsRules, answer: Answer
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Healthy())])
    await internet.policy("example.org", ENFORCE)
    internet.policies.behave("example.org", answer)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        asked = internet.policies.asked["example.org"]
        await relay.send("bob@example.org")
        await internet.wait_for(2)
        await relay.settled()
        assert internet.policies.asked["example.org"] == asked


async def test_a_policy_server_that_takes_its_time_is_left(
    internet: Internet, rules: TlsRules, resolver: dns.asyncresolver.Resolver
) -> None:
    await internet.policy("example.org", ENFORCE)
    internet.policies.behave("example.org", Answer(body=BODY, pause=5))
    hasty = HttpsFetch(Lookups(resolver), port=internet.policies.port, ca_file=rules.ca_file, seconds=0.2)
    with pytest.raises(PolicyError, match=r"not had within 0\.2 s"):
        await hasty("example.org")
    patient = HttpsFetch(Lookups(resolver), port=internet.policies.port, ca_file=rules.ca_file)
    with pytest.raises(PolicyError, match="does not exist"):
        await patient("example.net")


async def test_a_newer_policy_that_cannot_be_had_leaves_the_older_in_force(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.policy("example.org", ENFORCE)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        book = relay.engine.tls._policies
        assert book is not None
        assert await book.of("example.org")
        await internet.policy("example.org", "version: STSv1\nmode: none\nmax_age: x\n", id="2")
        relay.engine.mx._lookups._resolver.cache.flush()
        kept = await book.of("example.org")
        assert kept is not None
        assert (kept.mode, kept.id) == ("enforce", "1")
        internet.policies.say("example.org", "version: STSv1\nmode: none\nmax_age: 60\n")
        await clock.advance(301)
        ended = await book.of("example.org")
        assert ended is not None
        assert ended.mode == "none"


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED])
async def test_a_record_that_cannot_be_looked_up_keeps_no_mail(
    internet: Internet, clock: FakeClock, rules: TlsRules, fault: Fault
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Healthy())])
    internet.dns.behave("_mta-sts.example.org", fault)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert [delivery.host for delivery in internet.delivered] == ["mx1.example.org"]
        assert await relay.events("deferred") == []


async def test_settings_can_turn_it_off_for_all_and_for_one(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add("example.org", mx=[(10, "mx.evil.example", Healthy())])
    await internet.policy("example.org", ENFORCE)
    for changed in (replace(rules, mta_sts=False), replace(rules, destination=level("example.org", "none"))):
        async with relaying(internet, clock=clock, tls=changed) as relay:
            await relay.send("bob@example.org")
            await relay.settled()
    assert internet.messages == 2
    assert internet.policies.asked["example.org"] == 0
