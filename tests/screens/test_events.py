"""The list of events: the newest come first whatever was missed, and what is older comes when it is scrolled to."""

from collections.abc import Sequence
from typing import Any, cast

from console.widgets import panes
from console.widgets.panes import EventsPane
from engine.control.client import Client
from engine.control.views import OverviewView
from engine.model.event import Event

OVERVIEW = cast(OverviewView, None)  # the whole screen asks the engine itself


class Engine:
    """An engine that has so many events, and notes what it was asked."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.asked: list[dict[str, Any]] = []

    async def events(
        self, *, before: int | None = None, after: int | None = None, match: str = "", limit: int = 100
    ) -> tuple[Event, ...]:
        self.asked.append({"before": before, "after": after, "limit": limit})
        first, last = (after or 0) + 1, min(self.newest, (before or self.newest + 1) - 1)
        if after is not None:
            last = min(last, after + limit)
        return tuple(
            Event(seq=seq, at=seq, kind="delivered", by="engine")
            for seq in range(max(first, last - limit + 1), last + 1)
        )

    @property
    def client(self) -> Client:
        return cast(Client, self)


def seqs(pane: EventsPane) -> list[int]:
    return [row.seq for row in pane.select(OVERVIEW)]


def is_without_gap(seen: Sequence[int]) -> bool:
    return list(seen) == list(range(seen[0], seen[0] - len(seen), -1))


async def test_after_being_away_the_newest_come_first_and_no_gap_is_shown() -> None:
    pane, engine = EventsPane(full=True), Engine(300)
    await pane.reload(engine.client, OVERVIEW)
    assert seqs(pane)[0] == 300
    engine.newest = 480_300  # ten minutes at 800 a second
    await pane.reload(engine.client, OVERVIEW)
    seen = seqs(pane)
    assert seen[0] == 480_300
    assert is_without_gap(seen)


async def test_what_is_older_comes_when_it_is_scrolled_to() -> None:
    pane, engine = EventsPane(full=True), Engine(300)
    await pane.reload(engine.client, OVERVIEW)
    engine.newest = 480_300
    await pane.reload(engine.client, OVERVIEW)
    known = len(seqs(pane))
    pane.table.cursor = known - 1
    await pane.reload(engine.client, OVERVIEW)
    assert len(seqs(pane)) == known + panes.EVENTS_AT_ONCE
    assert is_without_gap(seqs(pane))


async def test_what_came_meanwhile_is_put_before_what_is_known() -> None:
    pane, engine = EventsPane(full=True), Engine(300)
    await pane.reload(engine.client, OVERVIEW)
    known = seqs(pane)
    engine.newest = 420
    await pane.reload(engine.client, OVERVIEW)
    assert seqs(pane)[:120] == list(range(420, 300, -1))
    assert seqs(pane)[120 : 120 + len(known)] == known
    assert engine.asked[1] == {"before": None, "after": 300, "limit": panes.MISSED_AT_MOST}
