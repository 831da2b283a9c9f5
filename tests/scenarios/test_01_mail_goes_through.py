"""1. Mail handed in over SMTP reaches the exchange that DNS names, byte for byte but for Received."""

from pathlib import Path

from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Authenticating, Dead, Encrypted, Healthy, Script
from engine.settings.settings import Dsn, Route
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying


def without_received(content: bytes) -> bytes:
    """The content without the Received field we put on top."""
    header, _, rest = content.partition(b"\r\nFrom:")
    assert header.startswith(b"Received: from ")
    return b"From:" + rest


async def test_a_message_arrives_as_it_was_sent(internet: Internet, relay: Relay) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    await relay.send("bob@example.org", "eve@example.org")
    await internet.wait_for(1)
    await relay.settled()
    (delivery,) = internet.delivered
    assert without_received(delivery.content) == LETTER
    (arrival, _) = await relay.events("accepted")
    assert f"\r\n\tid {arrival.message};".encode() in delivery.content
    assert (delivery.sender, delivery.recipients) == ("ann@example.com", ("bob@example.org", "eve@example.org"))
    assert await relay.entries() == ()
    assert [event.kind for event in await relay.events("accepted", "delivered")] == ["accepted"] * 2 + ["delivered"] * 2


async def test_the_second_exchange_takes_it_where_the_best_is_dead_and_the_best_is_marked_bad(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Dead()), (20, "mx2.example.org", Healthy())])
    await relay.send("bob@example.org")
    await internet.wait_for(1)
    assert internet.delivered[0].host == "mx2.example.org"
    (mark,) = relay.engine.mx.marks
    assert (mark.host, mark.by) == ("mx1.example.org", "engine")
    assert "refused" in mark.note
    (host,) = (await relay.client.hosts()).rows
    assert (host.host, host.alternates) == ("mx1.example.org", ("mx2.example.org",))


async def test_a_marked_host_is_good_again_when_it_answers(internet: Internet, relay: Relay) -> None:
    await internet.add("example.org", mx=[(10, "mx1.example.org", Dead())])
    await relay.send("bob@example.org")
    await relay.settled()
    assert [mark.host for mark in relay.engine.mx.marks] == ["mx1.example.org"]
    await internet.exchange("mx1.example.org").become(Healthy())
    await relay.later(400)
    assert internet.messages == 1
    assert relay.engine.mx.marks == ()


async def test_several_messages_share_one_connection_and_recipients_one_transaction(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
    for number in range(7):
        await relay.send(f"a{number}@example.org", f"b{number}@example.org")
    await relay.settled()
    await exchange.become(Healthy())
    await relay.later(1000)
    assert exchange.messages == 7
    assert exchange.sessions == 1
    assert all(len(delivery.recipients) == 2 for delivery in exchange.delivered)


async def test_a_message_for_two_domains_goes_to_both(internet: Internet, relay: Relay) -> None:
    await internet.add("a.example", mx=[(10, "mx.a.example", Healthy())])
    await internet.add("b.example", mx=[(10, "mx.b.example", Healthy())])
    await relay.send("x@a.example", "y@b.example")
    await internet.wait_for(2)
    assert {(delivery.host, delivery.recipients) for delivery in internet.delivered} == {
        ("mx.a.example", ("x@a.example",)),
        ("mx.b.example", ("y@b.example",)),
    }


async def test_tls_is_used_where_it_is_offered_and_done_without_where_it_breaks(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("safe.example", mx=[(10, "mx.safe.example", Encrypted("self-signed"))])
    await internet.add("rusty.example", mx=[(10, "mx.rusty.example", Encrypted("broken"))])
    await relay.send("x@safe.example", "y@rusty.example")
    await internet.wait_for(2)
    assert {delivery.host: delivery.tls for delivery in internet.delivered} == {
        "mx.safe.example": True,
        "mx.rusty.example": False,
    }


async def test_a_route_sends_mail_to_its_host_with_port_tls_and_password(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    upstream = await internet.host("upstream.example", Authenticating({"relay": "s3cret"}, certificate="good"))
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    authority = tmp_path / "authority.pem"
    authority.write_bytes(internet.certificates.authority_pem)
    route = Route(
        domain="*", host="upstream.example", port=upstream.port, tls="required", username="relay",
        password_file=secret, ca_file=authority,
    )  # fmt: skip
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@anywhere.example")
        await internet.wait_for(1)
        (delivery,) = upstream.delivered
        assert (delivery.login, delivery.tls, delivery.recipients) == ("relay", True, ("bob@anywhere.example",))


async def test_the_most_particular_route_takes_the_mail_and_explain_names_it(
    internet: Internet, clock: FakeClock
) -> None:
    domains = ("*", "*.example.org", "*.sales.example.org", "eu.sales.example.org")
    hosts = ("all.example", "org.example", "sales.example", "eu.example")
    for host in hosts:
        await internet.host(host, Healthy())
    routes = tuple(
        Route(domain=domain, host=host, port=internet.port) for domain, host in zip(domains, hosts, strict=True)
    )
    ways = {
        "eu.sales.example.org": ("eu.example", "eu.sales.example.org"),
        "us.sales.example.org": ("sales.example", "*.sales.example.org"),
        "a.b.c.sales.example.org": ("sales.example", "*.sales.example.org"),
        "sales.example.org": ("org.example", "*.example.org"),
        "example.org": ("all.example", "*"),
        "myexample.org": ("all.example", "*"),
    }
    async with relaying(internet, clock=clock, route=routes) as relay:
        await relay.send(*(f"bob@{domain}" for domain in ways))
        await internet.wait_for(len(ways))
        took = {one.recipients[0].partition("@")[2]: one.host for one in internet.delivered}
        assert took == {domain: host for domain, (host, _) in ways.items()}
        for domain, (host, named) in ways.items():
            (explained,) = (await relay.client.explain(domain)).explanations
            (fact,) = (fact.text for fact in explained.facts if fact.name == "route")
            assert fact == f"to {host}:{internet.port}, by the route for {named}"


async def test_a_route_that_requires_tls_keeps_the_mail_where_there_is_none(
    internet: Internet, clock: FakeClock
) -> None:
    upstream = await internet.host("upstream.example", Healthy())
    route = Route(domain="a.example", host="upstream.example", port=upstream.port, tls="required")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@a.example")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert "TLS is required" in entry.last.text
        assert upstream.messages == 0


async def test_a_file_moved_into_the_drop_folder_is_sent(internet: Internet, relay: Relay) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    (relay.spool / "note.tmp").write_bytes(LETTER.replace(b"\r\n", b"\n"))
    (relay.spool / "note.tmp").rename(relay.spool / "drop" / "note.eml")
    await internet.wait_for(1)
    assert internet.delivered[0].content.endswith(LETTER)
    assert not (relay.spool / "drop" / "note.eml").exists()


async def test_each_recipient_of_a_message_fares_on_its_own(internet: Internet, relay: Relay) -> None:
    replies = ["550 5.1.1 unknown", "451 4.2.1 later", None]
    await internet.add("example.org", mx=[(10, "mx.example.org", Script({"RCPT": replies}))])
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await relay.send("none@example.org", "later@example.org", "now@example.org")
    await internet.wait_for(1)
    await relay.settled()
    await relay.later(Dsn().gather)
    await internet.wait_for(2)
    (entry,) = await relay.entries()
    assert (entry.recipient, entry.attempts) == ("later@example.org", 1)
    (bounce,) = internet.exchange("mx.example.com").delivered
    assert (bounce.sender, bounce.recipients) == ("", ("ann@example.com",))
    assert b"none@example.org" in bounce.content
