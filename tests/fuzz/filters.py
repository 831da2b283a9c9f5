"""Filters: text of any kind either names messages or is refused in plain words."""

import contextlib
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from msgspec.structs import replace

from engine.base.text import clean
from engine.model.filter import STATES, Filter, FilterError
from engine.model.order import rule_filter
from engine.model.outcome import Outcome
from tests.fuzz.fuzzing import Fault, Fuzzer
from tests.unit.sqlite.support import SqliteSpool, opened

_FIELDS = (
    "domain",
    "to",
    "from",
    "subject",
    "reply",
    "group",
    "reason",
    "why",
    "text",
    "state",
    "id",
    "tries",
    "age",
    "size",
    "Domain",
)
_WORDS = (
    "example.org", "*.example.org", "bücher.example", "bob@example.org", "*@*", "<>", "2h", "1d12h", "1MiB", "0", "3",
    "48213", "1.1", "1,2.1", "18446744073709551616", "%", "_", "\\", "*", "'", "''", "held", "due", "ẞ", "\u0131",
    "\u0130", "'--", "4.2.1 try later", "not tried yet", "held by ann", "a" * 501, "9" * 18, "1e9", "0.0", "-1",
    "nan", ".", "..", "@", "invoice", "Straße", "\u202e", "\ufeff", "\x00", "\ud800", "=", "~", "!", '"',
    "[192.0.2.1]", "[ipv6:::1]", *STATES,
)  # fmt: skip
_SPACES = (" ", "  ", "\t", "\n", "\u00a0", "\u2003", "")

_value = st.one_of(st.sampled_from(_WORDS), st.text(max_size=12), st.text(st.characters(), max_size=5))
_quoted = _value.map(lambda value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"')
_term = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(("", "", "", "!", "!!")),
    st.one_of(st.sampled_from(_FIELDS), st.sampled_from(_FIELDS), st.text(max_size=3)),
    st.sampled_from(("=", "~", "<", ">", ":", "", "!=")),
    st.one_of(_value, _quoted),
)
_terms = st.lists(st.builds(str.__add__, _term, st.sampled_from(_SPACES)), min_size=1, max_size=4).map("".join)


class Filters(Fuzzer[str]):
    """filters: read, written out, read again the same, and looked up in a small store."""

    FOUND = ("", " ", '"', "!", "from=<>", 'group="450 4.2.1 later"', "domain=.", "!to~\u0130", "subject=**", "id=1,")
    SHORT = 300

    @property
    def cases(self) -> st.SearchStrategy[str]:
        return st.one_of(_terms, _terms, st.text(max_size=60), st.text(st.characters(), max_size=20))

    async def open(self) -> None:
        self._open = contextlib.AsyncExitStack()
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="sh-"))
        self._spool = await self._open.enter_async_context(opened(Path(folder)))
        await _fill(self._spool)
        self._all = (await self._spool.queue.listing.window(Filter.all(), "id", 0, 1)).total

    async def close(self) -> None:
        await self._open.aclose()

    async def check(self, case: str) -> None:
        try:
            found = Filter.parse(case)
        except FilterError as error:
            _is_plain(error)
            return
        if Filter.parse(str(found)) != found:
            raise Fault(
                f"read as {found}, written out as {str(found)!r}, and that is read as {Filter.parse(str(found))}"
            )
        self.went_well += bool(found.terms)
        with contextlib.suppress(FilterError):
            rule_filter(case)
        total = await self._count(found)
        if (selected := await self._spool.queue.listing.select(found)).recipients > total:
            raise Fault(f"lists {total} entries, and would act on {selected.recipients}")
        for term in found.terms:
            alone = await self._count(Filter(terms=(term,)))
            rest = await self._count(Filter(terms=(replace(term, inverted=not term.inverted),)))
            if alone + rest != self._all:
                raise Fault(f"{term}: {alone} match, inverted {rest}, and there are {self._all}")
            if total > alone:
                raise Fault(f"{total} match all terms, and {alone} the one {term}")

    async def _count(self, filter: Filter) -> int:
        return (await self._spool.queue.listing.window(filter, "id", 0, 5)).total


def _is_plain(error: FilterError) -> None:
    """What is said of a filter that cannot be read can be shown, and says something."""
    for said in (error.what, error.where, error.allowed):
        if clean(said, 2000) != said:
            raise Fault(f"the refusal is not clean: {said!r}")
    if not error.what:
        raise Fault("refused without a word")


async def _fill(spool: SqliteSpool) -> None:
    """Some messages of every kind: untried, deferred in several words, held, without a subject, of nobody."""
    said = (
        Outcome.of_reply(450, "4.2.1 try later", host="mx.example.org"),
        Outcome.of_reply(451, "100% Straße_\\ '", host="mx.example.org"),
        Outcome.transient("no connection within 30 s to [192.0.2.1]:25"),
    )
    for number in range(12):
        sender = ("", "ann@example.net", "jürgen@bücher.example")[number % 3]
        domain = ("example.org", "sub.example.org", "xn--bcher-kva.example")[number % 3]
        await spool.add(
            f"bob{number}@{domain}", "o'hara@example.com",
            sender=sender, subject=("", "Invoice 100%", "Straße \u0130 \u0131", "\\'")[number % 4],
        )  # fmt: skip
    for domain in ("example.org", "xn--bcher-kva.example"):
        for number, claim in enumerate(await spool.claim(domain)):
            await spool.settle(claim, said[number % len(said)], after=300)
    await spool.queue.orders.hold(Filter.parse("id=1,2"), "ann", "looking")
    await spool.queue.claims.claim("sub.example.org", 1, 7)
