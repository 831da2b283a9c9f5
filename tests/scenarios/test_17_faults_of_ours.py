"""17. What is wanting on this machine marks no host bad: the relay pauses, says so, and the mail waits untried."""

import asyncio
import errno
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.delivery.relayer import STORE_PAUSE
from engine.delivery.site import PAUSE
from engine.dns.lookups import LookupFailed
from engine.model.outcome import Outcome
from engine.model.verbs import Resume, Suspend
from engine.queue.errors import QueueBusy
from engine.sandbox.exchanges import Exchange, Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script, Slow
from engine.smtpclient.dialler import TcpDialler
from engine.smtpclient.mail import Mail
from engine.smtpclient.session import Session
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.serving import serving
from tests.smtp import smtp_client
from tests.waiting import until

DOMAINS = [f"d{number}.example" for number in range(6)]
FILES = 120
LOW = ("sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh")


class Failing(TcpDialler):
    """Dials as usual, but meets the errno that is set; `of` names the addresses for which, all where it is empty."""

    def __init__(self) -> None:
        self.code = 0
        self.of: set[str] = set()
        self.dialled = 0

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        self.dialled += 1
        if self.code and (not self.of or address in self.of):
            raise OSError(self.code, os.strerror(self.code))
        return await super().dial(address, port, timeout, source)


def failing(relay: Relay) -> Failing:
    """Have the relay dial so from now on."""
    dialler = relay.engine.smarthost._parts.dialler = Failing()
    return dialler


async def six(internet: Internet) -> None:
    for domain in DOMAINS:
        await internet.add(domain, mx=[(10, f"mx.{domain}", Healthy())])


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
async def test_where_nothing_can_be_opened_the_relay_pauses_and_the_mail_waits_untried(
    internet: Internet, relay: Relay, clock: FakeClock, code: int
) -> None:
    await six(internet)
    dialler = failing(relay)
    dialler.code = code
    for domain in DOMAINS:
        await relay.send(f"a@{domain}")
    await relay.settled()
    assert relay.engine.mx.marks == ()
    assert [entry.attempts for entry in await relay.entries()] == [0] * 6
    health = await relay.client.health()
    assert health.state == "sick"
    assert os.strerror(code).lower() in health.trouble
    assert "no host is marked bad" in health.trouble
    assert health.ready == 0
    assert [one.name for one in relay.engine.smarthost.limits_on("d0.example")] == ["paused"]
    dialled = dialler.dialled
    await relay.engine.smarthost.check_state()
    assert dialler.dialled == dialled  # nothing is tried while it pauses
    dialler.code = 0
    await clock.advance(1)
    await internet.wait_for(6)
    await relay.settled()
    assert (await relay.client.health()).trouble == ""
    assert await relay.entries() == ()
    assert await relay.events("deferred", "unreachable", "marked bad") == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL], ids=errno.errorcode.get)
async def test_what_no_address_lets_us_do_is_ours_though_one_that_does_not_is_its_own(
    internet: Internet, relay: Relay, clock: FakeClock, code: int
) -> None:
    await six(internet)
    dialler = failing(relay)
    dialler.code = code
    for domain in DOMAINS:
        await relay.send(f"a@{domain}")
    await relay.settled()
    assert relay.engine.mx.marks == ()
    assert os.strerror(code).lower() in (await relay.client.health()).trouble
    causes = {entry.last.cause for entry in await relay.entries() if entry.last is not None}
    assert causes <= {"ours"}
    dialler.code = 0
    await relay.later(1000)
    assert internet.messages == 6
    assert (await relay.client.health()).trouble == ""


async def test_an_address_that_may_not_be_dialled_keeps_nobody_elses_mail(internet: Internet, relay: Relay) -> None:
    """A domain may name as its exchange what a firewall here denies: that is no reason to stop."""
    dialler = failing(relay)
    dialler.code, dialler.of = errno.EACCES, {"192.0.2.1"}
    (good,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.send("a@good.example")
    await good.wait_for(1)
    for number in range(20):
        internet.dns.add(f"evil{number}.example", "MX", f"10 mx.evil{number}.example.")
        internet.dns.add(f"mx.evil{number}.example", "A", "192.0.2.1")
        await relay.send(f"a@evil{number}.example")
    await relay.settled()
    assert relay.engine.smarthost.pause.limiting is None
    assert relay.engine.mx.marks == ()
    health = await relay.client.health()
    assert health.trouble == ""
    assert any("192.0.2.1" in note for note in health.notes)
    await relay.send("b@good.example")
    await good.wait_for(2)


async def test_a_family_without_a_route_is_left_out_and_the_other_used(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock) as relay:
        (exchange,) = await internet.add("both.example", mx=[(10, "mx.both.example", Healthy())])
        internet.dns.add("mx.both.example", "AAAA", "2001:db8::1")
        (dead,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
        internet.dns.add("mx.dead.example", "AAAA", "2001:db8::1")
        internet.dns.add("six.example", "MX", "10 mx.six.example.")
        internet.dns.add("mx.six.example", "AAAA", "2001:db8::1")
        dialler = failing(relay)
        dialler.code, dialler.of = errno.ENETUNREACH, {"2001:db8::1"}
        parts = relay.engine.smarthost._parts
        parts.blame = lambda error, address: "family" if ":" in address else "host"
        relay.engine.smarthost.pause._has_family = lambda family: family == "IPv4"
        await relay.send("a@both.example")
        await exchange.wait_for(1)
        await relay.send("a@six.example")
        await relay.send("a@dead.example")
        await relay.settled()
        assert [mark.host for mark in relay.engine.mx.marks] == ["mx.dead.example"]  # by its other address
        (entry,) = await relay.entries("domain=six.example")
        assert entry.last is not None
        assert (entry.attempts, entry.last.cause, entry.last.kind) == (1, "ours", "transient")
        assert relay.engine.smarthost.pause.limiting is None
        assert (await relay.client.health()).trouble == ""
        assert dead.sessions == 0


async def test_off_the_net_all_mail_waits_untried(internet: Internet, relay: Relay, clock: FakeClock) -> None:
    await six(internet)
    dialler = failing(relay)
    dialler.code = errno.ENETUNREACH
    relay.engine.smarthost._parts.blame = lambda error, address: "family"
    relay.engine.smarthost.pause._has_family = lambda family: False
    for domain in DOMAINS:
        await relay.send(f"a@{domain}")
    await relay.settled()
    assert relay.engine.mx.marks == ()
    assert [entry.attempts for entry in await relay.entries()] == [0] * 6
    assert "network is unreachable" in (await relay.client.health()).trouble
    dialler.code = 0
    await clock.advance(1)
    await internet.wait_for(6)


async def test_a_host_that_a_router_calls_unreachable_is_marked_all_the_same(internet: Internet, relay: Relay) -> None:
    await internet.add("gone.example", mx=[(10, "mx.gone.example", Healthy())])
    failing(relay).code = errno.EHOSTUNREACH
    await relay.send("a@gone.example")  # its address is on loopback, to which there is a route
    await relay.settled()
    assert [mark.host for mark in relay.engine.mx.marks] == ["mx.gone.example"]


async def test_name_servers_that_cannot_be_asked_for_want_of_files_put_no_domain_in_doubt(
    internet: Internet, relay: Relay, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await six(internet)
    monkeypatch.setattr("engine.delivery.ways.shortage", lambda: "too many open files")
    monkeypatch.setattr(type(relay.engine.mx), "candidates", _not_to_be_asked)
    await relay.send("a@d0.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert (entry.attempts, entry.state) == (0, "waiting")
    assert "too many open files" in (await relay.client.health()).trouble
    assert await relay.events("unreachable") == []
    monkeypatch.undo()
    await clock.advance(1)
    await internet.wait_for(1)


async def _busy(*_: object) -> None:
    raise QueueBusy("another program holds the queue")


async def _faulty(*_: object) -> None:
    raise KeyError("a bug")


async def proved(internet: Internet, relay: Relay, *, then: Temper) -> Exchange:
    """A domain that has taken mail, and does something else from then on."""
    (exchange,) = await internet.add("proved.example", mx=[(10, "mx.proved.example", Healthy())])
    await relay.send("a@proved.example")
    await exchange.wait_for(1)
    await relay.settled()
    await exchange.become(then)
    return exchange


async def is_charged_with_nothing(relay: Relay, rests: float = PAUSE) -> None:
    """What the relay knows of that domain is as good as before, and it is left alone for a moment only."""
    known = await relay.engine.queue.listing.destination("proved.example")
    site = relay.engine.smarthost.site_at("proved.example", known.site)
    assert not known.is_in_doubt
    assert not site.is_failing
    assert site.failures == 0
    assert known.unreached_at == 0
    assert known.blocked_until == site.blocked_until == relay.clock.now() + rests
    assert relay.engine.mx.marks == ()
    assert await relay.events("unreachable") == []


async def test_a_store_that_is_busy_when_a_result_comes_is_no_failure_of_the_host(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await proved(internet, relay, then=Script({"RCPT": "450 later"}))
    monkeypatch.setattr(type(relay.engine.queue.claims), "settle", _busy)
    await relay.send("b@proved.example")
    await relay.settled()
    assert exchange.sessions == 2
    assert [entry.attempts for entry in await relay.entries()] == [0]
    await is_charged_with_nothing(relay, STORE_PAUSE)
    assert any("another program holds the queue" in note for note in await relay.bounds())
    (explained,) = (await relay.client.explain("proved.example")).explanations
    assert explained.cause == "blocked"
    assert "fault here, not recorded: another program holds the queue" in explained.text
    monkeypatch.undo()
    await relay.later(STORE_PAUSE)
    assert exchange.sessions == 3
    (entry,) = await relay.entries()
    assert (entry.attempts, entry.last and entry.last.text) == (1, "later")


async def test_a_fault_of_our_code_is_no_failure_of_the_host(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await proved(internet, relay, then=Healthy())
    monkeypatch.setattr(Session, "_transact", _faulty)
    await relay.send("b@proved.example")
    await relay.settled()
    assert exchange.sessions == 2
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert (entry.attempts, entry.last.cause, entry.last.text) == (1, "ours", "fault in the relay: KeyError")
    await is_charged_with_nothing(relay)
    assert any("fault in the relay: KeyError" in note for note in await relay.bounds())


async def test_a_fault_of_our_code_in_finding_the_way_is_an_attempt_and_does_not_go_round(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proved(internet, relay, then=Healthy())
    monkeypatch.setattr(type(relay.engine.mx), "candidates", _faulty)
    await relay.send("b@proved.example")
    await relay.settled()
    for _ in range(4):
        await relay.later(PAUSE)
    (entry,) = await relay.entries()
    assert (entry.attempts, entry.last and entry.last.cause) == (1, "ours")
    assert await relay.events("unreachable") == []


async def test_a_fault_of_ours_ends_one_of_several_connections_and_the_others_go_on(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Session._transact

    async def faulty_once(session: Session, mail: Mail, outcomes: list[Outcome | None]) -> Outcome:
        if mail.recipients == ("x7@many.example",):
            raise KeyError("a bug")
        return await right(session, mail, outcomes)

    (exchange,) = await internet.add("many.example", mx=[(10, "mx.many.example", Slow(0.005))])
    monkeypatch.setattr(Session, "_transact", faulty_once)
    await relay.client.ask(Suspend(destination="*", seconds=600, note="so that all are due at once"))
    for number in range(40):
        await relay.send(f"x{number}@many.example")
    await relay.client.ask(Resume(destination="*"))
    await relay.settled()
    assert exchange.messages == 39  # and none of them waited
    (entry,) = await relay.entries()
    assert (entry.recipient, entry.attempts) == ("x7@many.example", 1)
    assert not (await relay.engine.queue.listing.destination("many.example")).is_in_doubt


async def _not_to_be_asked(*_: object) -> None:
    raise LookupFailed("DNS gave no answer")


async def test_with_too_few_descriptors_no_exchange_is_marked_and_nothing_is_lost(internet: Internet) -> None:
    await six(internet)
    async with serving(internet.nameserver, internet.port, under=LOW) as served, served.client() as client:
        notes = (await client.health()).notes
        assert any(f"only {FILES} open files are allowed" in note for note in notes)
        async with smtp_client(served.port) as smtp:
            for domain in DOMAINS:
                await smtp.sendmail("ann@example.com", [f"a@{domain}"], LETTER)
            await internet.wait_for(6)
            await until(lambda: not any(exchange.open for exchange in internet.exchanges.values()))  # no more idle
            async with AsyncExitStack() as crowd:
                assert served.process is not None
                files = Path(f"/proc/{served.process.pid}/fd")
                for _ in range(FILES):
                    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
                    crowd.callback(writer.close)
                await until(lambda: len(list(files.iterdir())) >= FILES - 1)
                print(f"{len(list(files.iterdir()))} of {FILES} descriptors in use")
                for domain in DOMAINS:
                    await smtp.sendmail("ann@example.com", [f"b@{domain}"], LETTER)
                await until(lambda: "no connection can be opened" in served.output.read_text())
                await asyncio.sleep(1.5)  # the process tries again after a second, and says nothing of it
            await internet.wait_for(12, seconds=60)
        marked = await client.hosts()
        print(f"{marked.total} of {len(DOMAINS)} exchanges marked bad")
        assert marked.rows == ()
        health = await client.health()
        assert (health.trouble, health.waiting) == ("", 0)
        seen = [(delivery.host, delivery.recipients) for delivery in internet.delivered]
        assert len(seen) == len(set(seen)) == 12
