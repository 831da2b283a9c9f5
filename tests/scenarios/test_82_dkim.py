"""82. Mail is signed by its author's domain as it comes in, and what cannot be signed is never sent so in silence."""

import threading
import time
from email import message_from_bytes
from pathlib import Path

import aiosmtplib
import dns.asyncresolver
import pytest
from dns.rdatatype import TXT

from engine.dkim import signature, signer
from engine.dkim.records import check
from engine.engine import CannotStart
from engine.intake.content import LARGE
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.kinds import Unsigned
from engine.settings.settings import DkimKey, Dns, Nameserver, Retry, Rewrite
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.unit.dkim_keys import ed25519, records, rsa2048, signatures_in, unsigned_part, verified
from tests.waiting import until

LETTER = b"From: ann@example.com\r\nTo: bob@example.org\r\nSubject: hello\r\n\r\nHow are you?\r\n"
BOTH = ["rsa._domainkey.example.com", "ed._domainkey.example.com"]


@pytest.fixture
def clock() -> FakeClock:
    """It begins now: whoever verifies a signature looks when that was made."""
    return FakeClock(time.time())


@pytest.fixture
async def exchange(internet: Internet) -> Exchange:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    return internet.exchanges["mx.example.org"]


@pytest.fixture
def keys(internet: Internet, tmp_path: Path) -> tuple[DkimKey, ...]:
    """Two keys of a domain, of which the DNS knows."""
    made = (rsa2048(tmp_path, "example.com"), ed25519(tmp_path, "example.com"))
    publish(internet, *made)
    return made


def publish(internet: Internet, *keys: DkimKey) -> None:
    for name, record in records(*keys).items():
        strings = [f'"{record[start : start + 255]}"' for start in range(0, len(record), 255)]
        internet.dns.replace(name, "TXT", " ".join(strings))


async def right(content: bytes, resolver: dns.asyncresolver.Resolver, *keys: DkimKey) -> list[str]:
    """The records by which the signatures of a message are right, by what the DNS has."""
    known = {}
    for key in keys:
        answer = await resolver.resolve(key.record, TXT)
        known[key.record] = b"".join(answer[0].strings).decode()
    return verified(content, known)


def drop(relay: Relay, name: str, content: bytes) -> Path:
    (relay.spool / name).write_bytes(content)
    return (relay.spool / name).rename(relay.spool / "drop" / f"{name}.eml")


async def test_mail_arrives_with_both_signatures_however_it_came(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...],
    resolver: dns.asyncresolver.Resolver,
) -> None:  # fmt: skip
    async with relaying(internet, clock=clock, dkim=keys) as relay:
        await relay.send("bob@example.org", content=LETTER)
        await relay.send("bob@example.org", content=LETTER.replace(b"ann@", b"ann@news."))
        await clock.advance(5)  # files are taken that nobody has touched for a second
        path = drop(relay, "letter", LETTER)
        await clock.advance(60)
        await until(lambda: not path.exists())
        await relay.settled()
        await exchange.wait_for(3)
    for delivery in exchange.delivered:
        assert await right(delivery.content, resolver, *keys) == BOTH
        assert unsigned_part(delivery.content).startswith(b"Received: ")
    assert unsigned_part(exchange.delivered[0].content).endswith(b"+0000\r\n" + LETTER)


async def test_what_is_rewritten_is_signed_as_it_goes_out(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...],
    resolver: dns.asyncresolver.Resolver,
) -> None:  # fmt: skip
    rewrite = (Rewrite(match="*@*.local", to="web@example.com"),)
    async with relaying(internet, clock=clock, dkim=keys, rewrite=rewrite, complete="all") as relay:
        await relay.send("bob@example.org", sender="www-data@web1.local", content=b"Subject: cron\r\n\r\nwell\r\n")
        await relay.send("bob@example.org", content=LETTER.replace(b"ann@example.com", b"www-data@web1.local"))
        await relay.settled()
        await exchange.wait_for(2)
    for delivery in exchange.delivered:
        assert b"\r\nFrom: web@example.com\r\n" in delivery.content
        assert await right(delivery.content, resolver, *keys) == BOTH


async def test_mail_of_other_domains_goes_as_it_is(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...]
) -> None:
    async with relaying(internet, clock=clock, dkim=keys) as relay:
        for author in (b"ann@example.net", b"ann@notexample.com", b"ann@com"):
            await relay.send("bob@example.org", content=LETTER.replace(b"ann@example.com", author))
        await relay.settled()
        await exchange.wait_for(3)
        assert [event.text for event in await relay.events("accepted")] == ["smtp 127.0.0.1"] * 3
    assert not any(signatures_in(delivery.content) for delivery in exchange.delivered)


async def test_a_large_message_is_signed_where_it_keeps_nobody_waiting(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...],
    resolver: dns.asyncresolver.Resolver, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    threads: list[str] = []
    plain = signature.signatures

    def noted(*given: object) -> bytes:
        threads.append(threading.current_thread().name)
        return plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(signer, "signatures", noted)
    content = LETTER + b"and so on, and so on\r\n" * (LARGE // 10)
    async with relaying(internet, clock=clock, dkim=keys) as relay:
        await relay.send("bob@example.org", content=content)
        await relay.settled()
        await exchange.wait_for(1)
    assert await right(exchange.delivered[0].content, resolver, *keys) == BOTH
    assert [name.startswith("judge") for name in threads] == [True]


async def test_a_bounce_is_signed_where_the_relays_own_name_has_keys(
    internet: Internet, clock: FakeClock, exchange: Exchange, tmp_path: Path, resolver: dns.asyncresolver.Resolver
) -> None:
    key = ed25519(tmp_path, "example.net")  # above relay.example.net
    publish(internet, key)
    async with relaying(internet, clock=clock, dkim=(key,), retry=Retry(give_up_after=60)) as relay:
        await relay.send("nobody@no-such.example", sender="bob@example.org", content=LETTER)
        await relay.settled()
        await relay.later(30)
        await exchange.wait_for(1)
        (bounce,) = exchange.delivered
        assert bounce.sender == ""
        assert message_from_bytes(bounce.content)["From"] == "Mail Delivery System <mailer-daemon@relay.example.net>"
        assert await right(bounce.content, resolver, key) == ["ed._domainkey.example.net"]


async def test_a_bounce_waits_for_its_key(
    internet: Internet, clock: FakeClock, exchange: Exchange, tmp_path: Path
) -> None:
    key = ed25519(tmp_path, "example.net")
    pem = key.key.read_bytes()
    async with relaying(internet, clock=clock, dkim=(key,)) as relay:
        key.key.unlink()
        await relay.engine._look()
        await relay.send("nobody@no-such.example", sender="bob@example.org", content=LETTER)
        await relay.settled()
        await relay.later(60)
        assert exchange.messages == 0
        key.key.write_bytes(pem)
        await relay.engine._look()
        await relay.later(700)
        await exchange.wait_for(1)
    assert signatures_in(exchange.delivered[0].content) == 1


async def test_what_cannot_be_signed_waits_where_it_is_and_health_names_the_key(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...],
    resolver: dns.asyncresolver.Resolver,
) -> None:  # fmt: skip
    pem = keys[1].key.read_bytes()
    async with relaying(internet, clock=clock, dkim=keys) as relay:
        keys[1].key.write_text("no key")
        await relay.engine._look()
        with pytest.raises(aiosmtplib.SMTPDataError, match="cannot be signed at the moment") as refused:
            await relay.send("bob@example.org", content=LETTER)
        assert refused.value.code == 451
        path = drop(relay, "letter", LETTER)
        await clock.advance(60)
        await until(lambda: "waits to be signed" in relay.engine.drop.trouble)
        assert path.exists()
        health = await relay.client.health()
        assert "mail of example.com is put off, since it cannot be signed: dkim[1].key: " in health.trouble
        await until_told(relay, 2)
        told = {event.text.partition(": ")[0]: event.text for event in await relay.events("refused")}
        assert told["smtp 127.0.0.1"].startswith("smtp 127.0.0.1: cannot be signed: ")
        assert told["drop letter.eml"].startswith("drop letter.eml: waits to be signed: ")
        assert str(keys[1].key) in told["drop letter.eml"]

        keys[1].key.write_bytes(pem)
        await relay.engine._look()
        assert (await relay.client.health()).trouble == relay.engine.drop.trouble
        await clock.advance(60)
        await until(lambda: not path.exists())
        await relay.settled()
        await exchange.wait_for(1)
        assert relay.engine.trouble == ""
    assert await right(exchange.delivered[0].content, resolver, *keys) == BOTH


async def until_told(relay: Relay, count: int) -> None:
    """Refusals are recorded beside what they tell of."""
    await relay.engine.drop._refusals.finish(5)
    await relay.engine.smtp._reception.refusals.finish(5)
    assert len(await relay.events("refused")) >= count


@pytest.mark.parametrize(
    "author", [b"From: ann@example.com\r\nFrom: eve@example.net\r\n", b"From: <ann@example.com\r\n"]
)
async def test_what_never_can_be_signed_is_refused_for_good(
    internet: Internet, clock: FakeClock, keys: tuple[DkimKey, ...], author: bytes
) -> None:
    async with relaying(internet, clock=clock, dkim=keys) as relay:
        with pytest.raises(aiosmtplib.SMTPDataError) as refused:
            await relay.send("bob@example.org", content=author + b"Subject: x\r\n\r\nbody\r\n")
        assert refused.value.code == 554
        content = b"X-Envelope-From: ann@example.com\r\nTo: bob@example.org\r\n" + author + b"\r\nbody\r\n"
        path = drop(relay, "letter", content)
        await clock.advance(60)
        await until(lambda: not path.exists())
        assert "DKIM: cannot be signed" in (relay.spool / "drop" / "failed" / "letter.eml.reason").read_text()


async def test_what_cannot_be_signed_goes_without_where_that_is_set_and_its_events_say_so(
    internet: Internet, clock: FakeClock, exchange: Exchange, keys: tuple[DkimKey, ...]
) -> None:
    unsigned: Unsigned = "send"
    async with relaying(internet, clock=clock, dkim=keys, unsigned=unsigned) as relay:
        keys[0].key.unlink()
        await relay.engine._look()
        assert relay.engine.trouble.startswith("mail of example.com goes unsigned: dkim[0].key: ")
        await relay.send("bob@example.org", content=LETTER)
        await relay.settled()
        await exchange.wait_for(1)
        (event,) = await relay.events("accepted")
        assert event.text.startswith(f"smtp 127.0.0.1; goes unsigned: {keys[0].key} cannot be read")
    assert signatures_in(exchange.delivered[0].content) == 0


async def test_no_engine_starts_with_a_key_that_is_none(
    internet: Internet, clock: FakeClock, keys: tuple[DkimKey, ...]
) -> None:
    keys[1].key.write_text("no key")
    with pytest.raises(CannotStart, match=r"dkim\[1\]\.key: .* holds no key that can be read"):
        async with relaying(internet, clock=clock, dkim=keys):
            pass


async def test_the_dns_is_asked_whether_it_has_the_keys(
    internet: Internet, keys: tuple[DkimKey, ...], tmp_path: Path
) -> None:
    host, _, port = internet.nameserver.rpartition(":")
    asked = Dns(nameservers=(Nameserver(host, int(port)),))
    assert await check(keys, asked) == [
        (True, "rsa._domainkey.example.com (rsa): our key"),
        (True, "ed._domainkey.example.com (ed25519): our key"),
    ]
    internet.dns.replace(keys[0].record, "TXT", '"v=DKIM1; p="')
    internet.dns.remove(keys[1].record)
    revoked, missing = await check(keys, asked)
    assert revoked == (False, "rsa._domainkey.example.com (rsa): revoked: its p= is empty (RFC 6376 3.6.1)")
    assert missing == (False, "ed._domainkey.example.com (ed25519): missing: the DNS has no such name")
    publish(internet, keys[1])
    ed25519(tmp_path, "example.com")  # a new one in the place of what is published
    ((is_well, said),) = await check(keys[1:], asked)
    assert (is_well, said.partition(": v=")[0]) == (
        False,
        "ed._domainkey.example.com (ed25519): another key than ours",
    )
