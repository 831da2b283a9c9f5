"""Events are found by words: all of them, each anywhere in what is said of the event, `!` leaves out."""

import time
from pathlib import Path

import pytest

from console.commands.lists import _concerns
from engine.base.words import Word, stand_in, words_of
from engine.model.event import Event, Kind
from engine.model.outcome import Outcome
from tests.unit.queue.support import Opened, Spool

FULL = Outcome.of_reply(452, "4.2.2 Mailbox full_100%", host="mx.over.example", phase="RCPT")


NO_USER = Outcome.of_reply(550, "5.1.1 no such user", host="mx.two.example")


def event(kind: Kind, **fields: object) -> Event:
    return Event(at=0, kind=kind, **fields)  # type: ignore[arg-type]


HAPPENED = (
    event("deferred", message=1, entry=1, recipient="ann@over.example", outcome=FULL),
    event("returned", message=2, entry=1, recipient="bob@two.example", sender="news@shop.example", outcome=NO_USER),
    event("returned", message=3, entry=1, recipient="cy@three.example", sender="ann@shop.example", outcome=NO_USER),
    event("marked bad", host="mx.dead.example", by="root", text="it is DOWN"),
    event("delivered", message=4, entry=1, recipient="straße@vier.example"),
)


async def found(spool: Spool, match: str) -> list[int]:
    return [one.seq for one in await spool.queue.listing.events(match=match)]


@pytest.mark.parametrize(
    ("match", "seqs"),
    [
        ("returned", [2, 3]),  # all bounces
        ("deferred", [1]),
        ("452", [1]),
        ("mailbox", [1]),
        ("full over.example", [1]),
        ("over.example full", [1]),
        ("5.1.1", [2, 3]),
        ("returned ann", [3]),
        ("returned !ann", [2]),
        ("!returned !deferred", [4, 5]),
        ("marked bad", [4]),
        ("bad root down", [4]),
        ("  RETURNED   news ", [2]),
        ("STRAßE", [5]),
        ("full_100%", [1]),
        ("full_1_0", []),
        ("transient", []),  # a word of the store's, which nobody reads
        ("enhanced", []),
        ("!", []),
        ("nothing-like-it", []),
        ("", [1, 2, 3, 4, 5]),
    ],
)
async def test_events_are_found_by_all_their_words(tmp_path: Path, match: str, seqs: list[int], opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.arrivals.record(*HAPPENED)
        assert await found(spool, match) == seqs
        assert [one.seq for one in spool.events if _concerns(one, None, match)] == seqs, (
            "`events --follow` looks for the same"
        )


async def test_looking_through_all_events_kept_takes_a_moment(tmp_path: Path, opened: Opened) -> None:
    """100,000 are kept: a match that is nothing but words looks through all of them. Bounded loosely."""
    async with opened(tmp_path, events_kept=200_000) as spool:
        for _ in range(20):
            await spool.queue.arrivals.record(*HAPPENED * 1000)
        started = time.process_time()
        assert (
            await spool.queue.listing.events(match="example " + " ".join(f"!{n:x}z" for n in range(40)) + " zz") == ()
        )
        assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a !b", (Word("a", False), Word("b", True))),
        ("!", (Word("!", False),)),
        ("!!a", (Word("!a", True),)),
        (" \t ", ()),
    ],
)
def test_words_are_what_stands_between_spaces(text: str, words: tuple[Word, ...]) -> None:
    assert words_of(text) == words


def test_words_stand_in_a_text_in_any_case_and_order() -> None:
    assert stand_in(words_of("full OVER !gmail"), "over.example: Mailbox full")
    assert not stand_in(words_of("full over !mail"), "over.example: Mailbox full")
