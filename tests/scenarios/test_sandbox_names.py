"""The sandbox's name server answers over UDP and TCP, and faults when told to."""

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import pytest

from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault, NameServer


async def ask(
    server: NameServer, name: str, rdtype: str, *, tcp: bool = False, timeout: float = 5.0
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype)
    how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await how(query, server.address, port=server.port, timeout=timeout)


@pytest.mark.parametrize("tcp", [False, True])
async def test_records_are_given_and_questions_counted(internet: Internet, tcp: bool) -> None:
    internet.dns.add("Example.org", "MX", "10 mx1.example.org.", "20 mx2.example.org.", ttl=77)
    answer = (await ask(internet.dns, "example.ORG", "MX", tcp=tcp)).answer[0]
    assert answer.ttl == 77
    assert sorted(record.to_text().lower() for record in answer) == ["10 mx1.example.org.", "20 mx2.example.org."]
    assert internet.dns.asked("example.org", "MX") == 1
    assert internet.dns.tcp_queries["example.org", "MX"] == int(tcp)


async def test_what_is_not_there_does_not_exist_or_has_no_such_record(internet: Internet) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    assert (await ask(internet.dns, "nobody.example", "MX")).rcode() == dns.rcode.NXDOMAIN
    empty = await ask(internet.dns, "example.org", "MX")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    assert empty.authority[0].ttl == internet.dns.negative_ttl


async def test_canonical_names_are_followed_inside_the_answer(internet: Internet) -> None:
    internet.dns.add("alias.example", "CNAME", "example.org.")
    internet.dns.add("example.org", "MX", "10 mx.example.org.")
    assert len((await ask(internet.dns, "alias.example", "MX")).answer) == 2
    internet.dns.behave("alias.example", Fault.ONE_ALIAS)
    assert len((await ask(internet.dns, "alias.example", "MX")).answer) == 1


async def test_records_change_while_it_runs(internet: Internet) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    internet.dns.replace("example.org", "A", "127.0.0.10")
    assert (await ask(internet.dns, "example.org", "A")).answer[0][0].to_text() == "127.0.0.10"
    internet.dns.remove("example.org")
    assert (await ask(internet.dns, "example.org", "A")).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("fault", "rcode"),
    [
        (Fault.SERVFAIL, dns.rcode.SERVFAIL),
        (Fault.REFUSED, dns.rcode.REFUSED),
        (Fault.NXDOMAIN, dns.rcode.NXDOMAIN),
    ],
)
async def test_a_name_may_be_answered_with_an_error(internet: Internet, fault: Fault, rcode: dns.rcode.Rcode) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    internet.dns.behave("example.org", fault)
    assert (await ask(internet.dns, "example.org", "A")).rcode() == rcode
    internet.dns.behave("example.org", None)
    assert (await ask(internet.dns, "example.org", "A")).rcode() == dns.rcode.NOERROR


async def test_a_fault_may_be_of_one_type_only(internet: Internet) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    internet.dns.behave("example.org", Fault.SERVFAIL, "AAAA")
    assert (await ask(internet.dns, "example.org", "AAAA")).rcode() == dns.rcode.SERVFAIL
    assert (await ask(internet.dns, "example.org", "A")).rcode() == dns.rcode.NOERROR


async def test_silence_and_garbage_are_no_answers(internet: Internet) -> None:
    internet.dns.behave("silent.example", Fault.SILENT)
    internet.dns.behave("garbage.example", Fault.GARBAGE)
    with pytest.raises(dns.exception.Timeout):
        await ask(internet.dns, "silent.example", "A", timeout=0.2)
    with pytest.raises(dns.exception.DNSException):
        await ask(internet.dns, "garbage.example", "A")


async def test_what_is_too_long_for_udp_is_truncated_and_whole_over_tcp(internet: Internet) -> None:
    internet.dns.add("example.org", "MX", *(f"{n} mx{n}.example.org." for n in range(100)))
    short = await ask(internet.dns, "example.org", "MX")
    assert short.flags & dns.flags.TC
    assert short.answer == []
    assert len((await ask(internet.dns, "example.org", "MX", tcp=True)).answer[0]) == 100


async def test_what_is_no_record_is_refused(internet: Internet) -> None:
    with pytest.raises(dns.exception.SyntaxError):
        internet.dns.add("example.org", "MX", "not an exchange")
    assert (await ask(internet.dns, "example.org", "MX")).rcode() == dns.rcode.NXDOMAIN
