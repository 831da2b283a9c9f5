"""26. What others may write into the DNS costs us neither memory nor the loop."""

import asyncio
import gc
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dns.answers import MOST_RECORDS, AnswerCache, Mx
from engine.dns.lookups import LookupFailed, Lookups, name_of, resolver_for
from engine.dns.mx import MOST_EXCHANGES, MXCalculator
from engine.dns.nameserver import EDNS_PAYLOAD, LARGEST, LARGEST_OTHER, MOST_PARSED, parsed
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from tests.clock import FakeClock
from tests.scenarios.large_answers import LargeAnswers, large_answers, records
from tests.scenarios.marks import MarksInMemory
from tests.scenarios.relaying import relaying
from tests.waiting import until

KIB = 1024
SIXTY_KB = {"MX": 2500, "A": 3700, "AAAA": 2100, "TXT": 280, "TLSA": 1250}
UNDER_THE_BOUND = {"MX": 600, "A": 500, "AAAA": 280, "TXT": 37, "TLSA": 330}


@pytest.fixture
async def huge() -> AsyncIterator[LargeAnswers]:
    async with large_answers(SIXTY_KB) as server:
        yield server


@pytest.fixture
async def large() -> AsyncIterator[LargeAnswers]:
    async with large_answers(UNDER_THE_BOUND) as server:
        yield server


def lookups(server: LargeAnswers) -> Lookups:
    return Lookups(resolver_for([server.endpoint]))


async def ask(found: Lookups, rdtype: str, name: str = "big.example") -> tuple[object, ...]:
    _, every = await found.follow(name_of(name), dns.rdatatype.from_text(rdtype), 3)
    return tuple(every)


@pytest.mark.parametrize("rdtype", sorted(SIXTY_KB))
async def test_an_answer_too_large_for_its_type_is_no_answer_and_says_how_large_it_was(
    huge: LargeAnswers, rdtype: str
) -> None:
    found = lookups(huge)
    with pytest.raises(LookupFailed) as caught:
        await ask(found, rdtype)
    assert (caught.value.outcome.kind, caught.value.outcome.enhanced) == ("transient", "4.4.3")
    bound = LARGEST.get(dns.rdatatype.from_text(rdtype), LARGEST_OTHER)
    assert huge.sent[rdtype] > 55_000
    assert f"{huge.sent[rdtype]:,} bytes; of more than {bound:,} none is read" in caught.value.outcome.text
    assert "truncated" not in caught.value.outcome.text
    assert any("too large to be read" in note and "big.example" in note for note in found.notes)


@pytest.mark.parametrize("rdtype", ["MX", "A", "AAAA", "TLSA"])
async def test_of_a_set_the_first_hundred_records_are_kept(large: LargeAnswers, rdtype: str) -> None:
    assert len(await ask(lookups(large), rdtype)) == MOST_RECORDS == 100


async def test_of_a_large_answer_no_more_records_are_parsed_than_are_used(
    large: LargeAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    read = dns.message.from_wire

    def counting(wire: bytes, *args: object, **options: object) -> dns.message.Message:
        counts.append(sum(struct.unpack_from("!3H", wire, 6)))
        return read(wire, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dns.message, "from_wire", counting)
    for rdtype in UNDER_THE_BOUND:
        await ask(lookups(large), rdtype)
    assert max(counts) == MOST_PARSED == 128


async def test_of_sixty_kilobytes_for_each_of_many_domains_nothing_is_kept(huge: LargeAnswers) -> None:
    resolver = resolver_for([huge.endpoint])
    mx = MXCalculator(resolver, clock=FakeClock(), marks=MarksInMemory())
    for number in range(100):
        await attempt(mx.candidates, f"d{number}.example")
    assert huge.asked["MX"] == 100
    assert isinstance(resolver.cache, AnswerCache)
    assert (resolver.cache.answers, resolver.cache.records) == (0, 0)
    assert not mx._lookups._under_way
    assert await grown(mx.candidates, 5) < 5 * 64 * KIB  # with what the name server still has to send


async def test_of_many_domains_with_hundreds_of_records_the_hundred_are_all_that_is_kept(large: LargeAnswers) -> None:
    resolver = resolver_for([large.endpoint])
    mx = MXCalculator(resolver, clock=FakeClock(), marks=MarksInMemory())
    assert await grown(mx.candidates, 5) < 5 * 24 * KIB
    assert isinstance(resolver.cache, AnswerCache)
    assert resolver.cache.records == 7 * (1 + MOST_RECORDS)


async def grown(look: Callable[[str], Awaitable[object]], times: int) -> int:
    """The bytes that are kept of so many look-ups."""
    for number in range(2):  # what is made once only
        await attempt(look, f"first{number}.example")
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(times):
            await attempt(look, f"next{number}.example")
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


async def attempt(look: Callable[[str], Awaitable[object]], domain: str) -> None:
    with suppress(LookupFailed):
        await look(domain)


# -- what is cut is no "no" -------------------------------------------------------------------------------------------


async def test_an_answer_whose_first_records_are_others_is_never_taken_for_there_is_none() -> None:
    """A name server may write what counts behind all else; what we do not read does not return mail."""
    async with large_answers({"MX": 50}) as server:
        server.before = records("A", MOST_PARSED, name=b"\x05other\x07example\x00")
        server.before_count = MOST_PARSED
        with pytest.raises(LookupFailed, match="the first 128 are not what was asked for"):
            await ask(lookups(server), "MX")


def test_an_answer_that_is_no_answer_is_none() -> None:
    for wire in (b"", b"\0" * 11):
        with pytest.raises(dns.message.ShortHeader):
            parsed(wire)
    with pytest.raises(dns.query.BadResponse):
        parsed(struct.pack("!6H", 1, 0x8180, 3000, 0, 0, 0) + b"\1a\0\0\1\0\1" * 3000)


WHOLE = LargeAnswers({"MX": 200}).answer(dns.message.make_query("big.example", "MX").to_wire(), truncated=False)


@given(st.integers(0, 60), st.binary(max_size=8), st.integers(0, 65_535))
@settings(max_examples=50, deadline=None)
def test_whatever_is_in_an_answer_it_is_parsed_or_refused(at: int, instead: bytes, count: int) -> None:
    wire = WHOLE[:6] + struct.pack("!H", count) + WHOLE[8:]
    wire = wire[:at] + instead + wire[at + len(instead) :]
    with suppress(dns.exception.DNSException):
        message = parsed(wire)
        assert sum(map(len, message.answer)) <= MOST_PARSED


async def test_a_datagram_longer_than_we_said_we_take_is_asked_for_again_over_tcp(large: LargeAnswers) -> None:
    large.over_udp = True
    assert len(await ask(lookups(large), "A")) == MOST_RECORDS
    assert large.asked["A"] == 1
    assert large.sent["A"] > EDNS_PAYLOAD


# -- the cache --------------------------------------------------------------------------------------------------------


def put(cache: AnswerCache, name: str, rdtype: str, *texts: str, ttl: int = 300) -> None:
    """Put an answer into the cache as dnspython does."""
    asked = dns.message.make_query(name, rdtype)
    response = dns.message.make_response(asked)
    if texts:
        response.answer.append(dns.rrset.from_text_list(asked.question[0].name, ttl, "IN", rdtype, texts))
    response = dns.message.from_wire(response.to_wire())
    assert isinstance(response, dns.message.QueryMessage)
    question = asked.question[0]
    answer = dns.resolver.Answer(question.name, question.rdtype, dns.rdataclass.IN, response)
    cache.put((question.name, question.rdtype, dns.rdataclass.IN), answer)


def has(cache: AnswerCache, name: str, rdtype: str = "A") -> bool:
    return cache.find(dns.name.from_text(name), dns.rdatatype.from_text(rdtype)) is not None


def test_the_cache_is_bounded_by_the_records_in_it_and_lets_go_of_what_nobody_asked_for() -> None:
    cache = AnswerCache(most_answers=1000, most_records=50)
    for number in range(10):
        put(cache, f"d{number}.example.", "A", *(f"127.0.0.{one}" for one in range(9)))
        assert cache.records <= 50
        assert has(cache, "d0.example.")
    assert [number for number in range(10) if has(cache, f"d{number}.example.")] == [0, 6, 7, 8, 9]
    assert cache.crowded_out == 5
    put(cache, "too-large.example.", "A", *(f"127.0.1.{one}" for one in range(100)))
    assert (cache.answers, cache.records) == (0, 0)


def test_the_cache_is_bounded_by_the_answers_in_it() -> None:
    cache = AnswerCache(most_answers=3, most_records=1000)
    for number in range(10):
        put(cache, f"d{number}.example.", "MX")
    assert (cache.answers, cache.records) == (3, 3)


def test_a_long_record_counts_as_several() -> None:
    cache = AnswerCache()
    put(cache, "d.example.", "TXT", " ".join(['"' + "x" * 250 + '"'] * 20))
    assert cache.records == 1 + 1 + 5000 // 256
    put(cache, "d.example.", "TXT", '"short"')
    assert cache.records == 2


def test_what_is_kept_is_kept_for_its_ttl_whatever_the_wall_clock_does() -> None:
    now = 1000.0
    cache = AnswerCache(now=lambda: now)
    put(cache, "d.example.", "MX", "10 MX.Example.", "0 .", ttl=300)
    put(cache, "day.example.", "MX", ttl=2_000_000_000)
    found = cache.find(dns.name.from_text("D.example."), dns.rdatatype.MX)
    assert found is not None
    assert set(found.records or ()) == {Mx(10, "mx.example"), Mx(0, ".")}
    now += 299
    assert has(cache, "d.example.", "MX")
    now += 2
    assert not has(cache, "d.example.", "MX")
    assert cache.records == cache.answers


async def test_that_the_cache_is_full_is_told() -> None:
    async with large_answers({"A": 90}) as server:
        resolver = resolver_for([server.endpoint])
        resolver.cache = AnswerCache(most_records=200)
        found = Lookups(resolver)
        await ask(found, "A", "d1.example")
        assert not found.notes
        for number in range(3):
            await ask(found, "A", f"d{number}.example")
        assert any("the DNS cache is full" in note for note in found.notes)


# -- all the way ------------------------------------------------------------------------------------------------------


async def test_the_hosts_of_a_way_are_twenty_at_the_most(internet: Internet, clock: FakeClock) -> None:
    internet.dns.add("example.org", "MX", *(f"{number} mx{number}.example.org." for number in range(1, 101)))
    async with relaying(internet, clock=clock) as relay:
        way = await relay.engine._router.way("example.org")
        assert way.hosts == tuple(f"mx{number}.example.org" for number in range(1, 21))
        assert len(way.hosts) == MOST_EXCHANGES
        assert len(way.site) < 500


async def test_health_tells_of_answers_that_were_refused_and_mail_waits(internet: Internet, clock: FakeClock) -> None:
    internet.dns.add("big.example", "MX", *(f"10 mx{number}.big.example." for number in range(1000)))
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@big.example")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.state == "waiting"
        assert entry.last is not None
        assert entry.last.text.count("bytes; of more than 16,384 none is read for MX") == 1
        health = await relay.client.health()
        assert any("too large to be read" in one for one in health.notes)


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            found += str(link.readlink()).startswith("socket:")
    return found


@pytest.mark.filterwarnings("ignore:unclosed resource")  # told by a loop that ends, it would keep that from ending
async def test_a_question_that_is_cancelled_at_any_step_leaves_no_socket_open(internet: Internet) -> None:
    internet.dns.behave("silent.example", Fault.SILENT)
    resolver = resolver_for([internet.nameserver])
    before = sockets()
    for steps in range(12):  # it waits for the answer well before the last
        asking = asyncio.create_task(resolver.resolve("silent.example", "MX", search=False))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
    await until(lambda: sockets() <= before, 5)


async def test_the_loop_is_not_held_by_what_is_parsed(large: LargeAnswers) -> None:
    """What holds it longest is the parsing, and that takes its processor time; 60 KB took ten times as much."""
    (wire,) = [large.answer(dns.message.make_query("big.example", "MX").to_wire(), truncated=False)]
    took = []
    for _ in range(20):
        began = time.thread_time()
        parsed(wire)
        took.append(time.thread_time() - began)
        await asyncio.sleep(0)
    assert min(took) < 0.02
