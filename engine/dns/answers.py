"""What is kept of the answers of the DNS: plain records of ours, no more of a set than is used, and a bounded cache.

A parsed answer of 60 KB is some megabytes of objects. Whoever names the domains of a message chooses how many such
answers we ask for; so what is kept is small, and counted.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import cast

import dns.flags
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TLSA import TLSA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from msgspec import Struct

# Of one set. Five times the exchanges and ten times the addresses that are ever tried, and where Postfix 3.9 cuts, too:
# no domain in good order comes near it. Which hundred of more does not matter: a set has no order (RFC 2181 5).
MOST_RECORDS = 100

MOST_ANSWERS = 10_000  # kept, of whatever size
MOST_RECORDS_KEPT = 50_000  # in all answers together, some 20 MiB at the most
LONGEST_TTL = 86_400.0  # seconds; an answer that says "for ever" is asked for again after a day

_NOTED = 3600.0  # seconds that health tells of a bound that was reached
_REFUSALS_KEPT = 1000
_OCTETS_A_RECORD = 256  # a record that is longer (TXT, TLSA) counts as several, so that their number bounds memory


class Mx(Struct, frozen=True, gc=False):
    """An MX record: its host in lower case without the final dot, "." for none (RFC 7505)."""

    preference: int
    host: str


class TlsaData(Struct, frozen=True, gc=False):
    """A TLSA record as it is written (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


# An address; a canonical name, or one pointed to; the octets of a TXT record, its strings put together; MX; TLSA.
Record = str | bytes | Mx | TlsaData


class Found(Struct, frozen=True):
    """What one question came to: the canonical names it was led through, and the records at the last of them.

    `records` None: the answer holds none of the type there. `is_half`: it says itself that it is not whole (TC).
    `secure`: the resolver says that it is authentic (AD).
    """

    aliases: tuple[dns.name.Name, ...] = ()
    records: tuple[Record, ...] | None = None
    secure: bool = False
    is_half: bool = False
    exists: bool = True

    @property
    def weight(self) -> int:
        """The number of records that it counts as."""
        return 1 + len(self.aliases) + sum(map(_weight, self.records or ()))


def found_in(answer: dns.resolver.Answer) -> Found:
    """What is kept of an answer."""
    return Found(
        tuple(cast(CNAME, records[0]).target for records in answer.chaining_result.cnames),
        None if answer.rrset is None else _records(answer.rrset),
        bool(answer.response.flags & dns.flags.AD),
        bool(answer.response.flags & dns.flags.TC),  # dnspython looks at this over UDP only
        answer.response.rcode() != dns.rcode.NXDOMAIN,
    )


class AnswerCache(dns.resolver.CacheBase):
    """Keeps what was found for the TTL of the answer, but no longer than a day, and no half ones.

    dnspython puts its answers in; they are asked for by `find`, since dnspython's own are not kept. When there are more
    than `most_answers`, or more records in them than `most_records`, what was asked for the longest ago is let go.
    """

    def __init__(
        self,
        most_answers: int = MOST_ANSWERS,
        most_records: int = MOST_RECORDS_KEPT,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.records = 0  # kept, as they count
        self.crowded_out = 0  # answers let go before their time
        self._crowded_at: float | None = None
        self._refused: deque[tuple[float, str]] = deque(maxlen=_REFUSALS_KEPT)  # when, and for what
        self._most_answers = most_answers
        self._most_records = most_records
        self._now = now
        self._kept: OrderedDict[dns.resolver.CacheKey, tuple[float, Found]] = OrderedDict()

    @property
    def answers(self) -> int:
        """The number of answers kept. (No `__len__`: dnspython takes a cache that is false for none.)"""
        return len(self._kept)

    def get(self, key: dns.resolver.CacheKey) -> None:
        """Nothing: whoever wants to know asks `find` before dnspython is asked."""

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        """Keep what an answer says."""
        value.expiration = min(value.expiration, time.time() + LONGEST_TTL)
        found = found_in(value)
        ttl = value.expiration - time.time()
        if found.is_half or ttl <= 0:
            return
        self._drop(key)
        self._kept[key] = (self._now() + ttl, found)
        self.records += found.weight
        while len(self._kept) > self._most_answers or self.records > self._most_records:
            oldest, (until, _) = next(iter(self._kept.items()))
            if until > self._now():
                self.crowded_out += 1
                self._crowded_at = self._now()
            self._drop(oldest)

    def find(self, name: dns.name.Name, rdtype: RdataType) -> Found | None:
        """What is known of this; None: nothing that is still good. A name that does not exist has no type at all."""
        for each in (rdtype, dns.rdatatype.ANY):  # dnspython puts NXDOMAIN under ANY
            key = (name, each, dns.rdataclass.IN)
            until, found = self._kept.get(key, (0.0, None))
            if found is not None and until > self._now():
                self._kept.move_to_end(key)
                return found
            self._drop(key)
        return None

    def flush(self, key: dns.resolver.CacheKey | None = None) -> None:
        """Let go of what is known under a key, or of everything."""
        for each in list(self._kept) if key is None else [key]:
            self._drop(each)

    def refused(self, what: str) -> None:
        """Note that an answer was too large to be read."""
        self._refused.append((self._now(), what))

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached in the last hour, in sentences."""
        since = self._now() - _NOTED
        while self._refused and self._refused[0][0] < since:
            self._refused.popleft()
        found = []
        if self._refused:
            count, last = len(self._refused), self._refused[-1][1]
            how_many = f"{'at least ' if count == _REFUSALS_KEPT else ''}{count:,} answer{'s' if count > 1 else ''}"
            were = "were" if count > 1 else "was"
            found.append(f"{how_many} of the DNS {were} too large to be read in the last hour, the last for the {last}")
        if self._crowded_at is not None and self._crowded_at >= since:
            found.append(
                f"the DNS cache is full ({self.records:,} records of {self.answers:,} answers): what was asked for the"
                " longest ago is asked for again"
            )
        return tuple(found)

    def _drop(self, key: dns.resolver.CacheKey) -> None:
        _, found = self._kept.pop(key, (0.0, None))
        if found is not None:
            self.records -= found.weight


def text_of(name: dns.name.Name) -> str:
    """A DNS name as people write it: lower case, without the final dot."""
    return name.to_text(omit_final_dot=True).lower()


def _records(rrset: dns.rrset.RRset) -> tuple[Record, ...]:
    return tuple(_plain(rrset.rdtype, record) for record in islice(rrset, MOST_RECORDS))


def _plain(rdtype: RdataType, record: object) -> Record:
    match rdtype:
        case dns.rdatatype.MX:
            mx = cast(MX, record)
            return Mx(mx.preference, text_of(mx.exchange))
        case dns.rdatatype.TXT:
            return b"".join(cast(TXT, record).strings)
        case dns.rdatatype.TLSA:
            tlsa = cast(TLSA, record)
            return TlsaData(int(tlsa.usage), int(tlsa.selector), int(tlsa.mtype), bytes(tlsa.cert))
        case dns.rdatatype.CNAME | dns.rdatatype.PTR:
            return text_of(cast(CNAME | PTR, record).target)
        case _:
            return str(cast(A, record).address)


def _weight(record: Record) -> int:
    octets = record.data if isinstance(record, TlsaData) else record
    return 1 + (len(octets) // _OCTETS_A_RECORD if isinstance(octets, bytes) else 0)
