"""DNS answers: whatever a name server sends, a look-up gives hosts or addresses, or an error of its contract."""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from hypothesis import strategies as st
from msgspec import Struct

from engine.base.text import clean
from engine.dns.lookups import DomainNotFound, Lookups, MXError, resolver_for
from engine.dns.mx import Exchange, MXCalculator
from engine.model.destination import Mark
from engine.model.order import Touched
from engine.queue.contract import Marks
from engine.sandbox.names import NameServer
from tests.clock import FakeClock
from tests.fuzz.fuzzing import Fault, Fuzzer

DOMAIN, HOST = "d.example", "mx.d.example"
TIMEOUT, LIFETIME = 0.03, 0.06  # seconds for one question, and for all about one name
BOUND = 20.0  # seconds within which a look-up ends, however far it is led
MOST_ADDRESSES = 20
AT_ONCE = 6  # domains
LARGEST = 60_000  # bytes of an answer

_NAMES = (
    DOMAIN, HOST, "a.example", "b.example", "c.d.example", "xn--bcher-kva.example", "relay.example.net", "_x.example",
)  # fmt: skip
_RECORDS = (
    ("MX", "10 mx.d.example."), ("MX", "0 ."), ("MX", "0 relay.example.net."),
    ("MX", "65535 a.example."), ("MX", "5 192.0.2.1."), ("MX", "5 a\\000b.example."), ("MX", "5 \\[a\\].example."),
    ("MX", "5 x\\032y."), ("CNAME", "a.example."), ("CNAME", "b.example."), ("CNAME", "d.example."), ("CNAME", "."),
    ("A", "192.0.2.1"), ("A", "0.0.0.0"), ("AAAA", "2001:db8::1"), ("AAAA", "::ffff:127.0.0.1"),
    ("TXT", '"v=STSv1; id=1;"'), ("NS", "a.example."), ("SOA", "a.example. b.example. 1 2 3 4 5"),
    ("TLSA", "3 1 1 " + "ab" * 32), ("DNAME", "a.example."),
)  # fmt: skip
_USUAL = {"MX": "10 mx.d.example.", "A": "192.0.2.1", "AAAA": "2001:db8::1", "TLSA": "3 1 1 " + "ab" * 32}


class Answer(Struct, frozen=True):
    """One answer: records by (name, which of _RECORDS), how often they stand there, and what becomes of the bytes.

    `changes` sets the byte at a place, counted from behind the id; `end` cuts it there; `raw` stands for all of it.
    `mute`: none is given. `usual`: the records that were asked for come before those.
    """

    records: tuple[tuple[int, int], ...] = ()
    times: int = 1
    rcode: int = 0
    flags: int = 0
    changes: tuple[tuple[int, int], ...] = ()
    end: int | None = None
    raw: bytes | None = None
    mute: bool = False
    usual: bool = False


Told = tuple[Answer, ...]
"""What one name server answers, question by question."""

_record = st.tuples(st.sampled_from((0, 0, 0, *range(len(_NAMES)))), st.integers(0, len(_RECORDS) - 1))
_change = st.tuples(st.integers(0, 120), st.integers(0, 255))
_answer = st.builds(
    Answer,
    st.lists(_record, max_size=5).map(tuple),
    times=st.sampled_from((1, 1, 1, 1, 30)),
    rcode=st.sampled_from((0, 0, 0, 0, 0, 2, 3, 3, 5, 9)),
    flags=st.sampled_from((0, 0, 0, dns.flags.AA, dns.flags.AD, dns.flags.TC)),
    changes=st.one_of(st.just(()), st.lists(_change, max_size=4).map(tuple)),
    usual=st.sampled_from((True, True, False)),
    end=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 120)),
)
_odd = st.one_of(st.builds(Answer, raw=st.binary(max_size=60)), st.just(Answer(mute=True)))


class DnsAnswers(Fuzzer[tuple[Told, ...]]):
    """DNS answers: odd, changed and cut ones; they name hosts, or end in an error that is known.

    Several domains are looked up at a time, each at a name server of its own: most of the time goes by in waiting.
    """

    FOUND = (
        ((Answer(usual=True),), (Answer(records=((0, 8), (2, 9), (3, 10))),)),  # a loop within one answer
        ((Answer(records=((0, 0), (0, 1))), Answer(records=((1, 12),))),),
        ((Answer(raw=b""),), (Answer(flags=dns.flags.TC),)),
    )
    SHORT = 30

    @property
    def cases(self) -> st.SearchStrategy[tuple[Told, ...]]:
        told = st.lists(st.one_of(*[_answer] * 5, _odd), min_size=1, max_size=5).map(tuple)
        return st.lists(told, min_size=1, max_size=AT_ONCE).map(tuple)

    async def open(self) -> None:
        self._servers = [_Server() for _ in range(AT_ONCE)]
        for server in self._servers:
            await server.start()

    async def close(self) -> None:
        for server in self._servers:
            await server.stop()

    async def check(self, case: tuple[Told, ...]) -> None:
        for failed in await asyncio.gather(*map(self._look_up, self._servers, case), return_exceptions=True):
            if failed is not None:
                raise failed

    async def _look_up(self, server: "_Server", told: Told) -> None:
        server.begin(told)
        resolver = resolver_for([server.endpoint], timeout=TIMEOUT, lifetime=LIFETIME, validating=True)
        mx = MXCalculator(resolver, clock=FakeClock(), marks=_NoMarks(), own_names=("relay.example.net",))
        found = await _ask(server, mx.candidates(DOMAIN))
        if isinstance(found, MXError):
            if isinstance(found, DomainNotFound) and not server.has_said_nxdomain:
                raise Fault(f"nobody said that it does not exist: {found}")
        else:
            _are_hosts(found)
            found = [Exchange(host=HOST, preference=0), *found[:1]]
            for exchange in found:
                addresses = await _ask(server, mx.addresses(exchange.host))
                if not isinstance(addresses, MXError):
                    _are_addresses(addresses)
                    self.went_well += 1
        await _ask(server, Lookups(resolver).trace(dns.name.from_text(f"_25._tcp.{HOST}"), dns.rdatatype.TLSA, 3))


class _Server(NameServer):
    """Answers as the case says, question by question; the last answer repeats."""

    def begin(self, answers: tuple[Answer, ...]) -> None:
        self._answers = list(answers)
        self.was_understood = self.has_said_nxdomain = False

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        made = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if made.mute:
            return None
        given = _wire(made, query, wire)
        self._note(given)
        return given

    def _note(self, given: bytes) -> None:
        try:
            read = dns.message.from_wire(given, ignore_trailing=True)
        except Exception:  # noqa: BLE001 - it raises what it likes, and that is the point
            return
        self.was_understood = True
        self.has_said_nxdomain = self.has_said_nxdomain or read.rcode() == dns.rcode.NXDOMAIN


class _NoMarks(Marks):
    """No host is marked."""

    async def all(self) -> tuple[Mark, ...]:
        return ()

    async def save(self, mark: Mark) -> None:
        raise AssertionError(mark)

    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:
        raise AssertionError(host)

    async def forget(self, hosts: Sequence[str]) -> None:
        raise AssertionError(hosts)

    async def take_back(self, marks: Sequence[Mark], note: str) -> None:
        raise AssertionError(marks)


async def _ask(server: _Server, question: Awaitable[Any]) -> Any:
    """What a look-up gives, or the error of the contract that it raises."""
    begin = time.monotonic()
    try:
        found = await question
    except MXError as error:
        found = error
        if error.permanent and not server.was_understood and type(error) is not DomainNotFound:
            raise Fault(f"nothing that was answered can be read, and mail would be returned: {error}") from error
        if clean(str(error)) != str(error) or error.outcome.kind == "delivered":
            raise Fault(f"an error that cannot be shown: {error!r}") from error
    if (took := time.monotonic() - begin) > BOUND:
        raise Fault(f"it took {took:.0f} s")
    return found


def _wire(made: Answer, query: dns.message.Message, asked: bytes) -> bytes:
    """The bytes of an answer."""
    if made.raw is not None:
        return asked[:2] + made.raw
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.Rcode(made.rcode))
    response.flags |= made.flags
    asked_for = dns.rdatatype.to_text(query.question[0].rdtype)
    if made.usual and asked_for in _USUAL:
        usual = dns.rrset.from_text(query.question[0].name, 60, "IN", asked_for, _USUAL[asked_for])
        response.answer.append(usual)
    for name, which in made.records:
        rdtype, text = _RECORDS[which]
        texts = [text]
        if made.times > 1 and rdtype == "MX":
            texts += [f"{number} m{number}.example." for number in range(made.times)]
        response.answer.append(dns.rrset.from_text_list(f"{_NAMES[name]}.", 60, "IN", rdtype, texts))
    wire = bytearray(response.to_wire(max_size=LARGEST))
    for at, value in made.changes:
        if at + 2 < len(wire):
            wire[at + 2] = value
    return bytes(wire if made.end is None else wire[: 2 + made.end])


def _are_hosts(found: list[Exchange]) -> None:
    if not found:
        raise Fault("no host, and no error")
    for one in found:
        if not one.host or clean(one.host) != one.host or not 0 <= one.preference <= 65_535:
            raise Fault(f"no host: {one}")


def _are_addresses(found: list[str]) -> None:
    if not 0 < len(found) <= MOST_ADDRESSES:
        raise Fault(f"{len(found)} addresses")
    for one in found:
        ipaddress.ip_address(one)
