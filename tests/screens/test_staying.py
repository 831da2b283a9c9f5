"""Nothing moves what the operator points at: cursor and marks stay on their row, whatever the rows do."""

from msgspec.structs import replace

from console.widgets.table import Table
from engine.control import views
from engine.model.destination import Destination
from engine.model.event import Event
from engine.model.message import Entry, Window
from engine.model.verbs import MailAsk
from tests.screens import canned
from tests.screens.canned import ENTRIES, NOW, OVERVIEW, CannedClient, entry
from tests.screens.conftest import Console_, Hand


def _table(hand: Hand) -> Table[Entry]:
    front = hand.app.front
    assert front is not None
    table = front.table()
    assert table is not None
    return table


async def test_the_cursor_stays_on_its_message_when_rows_above_it_leave(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", *["down"] * 5)
        hand.client.entries = ENTRIES[3:]
        await hand.rest()
        row = _table(hand).pointed
        assert row is not None
        assert row.id == "48206.1"


async def test_the_row_stays_where_it_is_on_the_screen(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press("2", "pagedown", "pagedown", "up")
        table = _table(hand)
        line = table.cursor - table.top
        hand.client.entries = ENTRIES[7:]
        await hand.rest()
        assert table.cursor - table.top == line


async def test_marks_stay_on_their_messages(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down", "space", "space")
        hand.client.entries = (entry(48_100), *ENTRIES)
        await hand.rest()
        assert _table(hand).marks == {"48202.1", "48203.1"}


async def test_nothing_is_pointed_at_when_the_row_has_left_until_another_is_chosen(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down", "down")
        hand.client.entries = ENTRIES[:2] + ENTRIES[3:]
        await hand.rest()
        await hand.press("r")
        assert not hand.client.did(MailAsk), "the row that took its place was not chosen"
        assert "point at a message" in hand.status
        await hand.press("down", "r")
        [action] = hand.client.did(MailAsk)
        assert action.filter == "id=48205.1"


async def test_a_destination_stays_pointed_at_when_the_order_changes(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("down")
        turned = tuple(reversed(canned.DESTINATIONS))
        hand.client.seen = replace(OVERVIEW, destinations=turned)
        await hand.rest()
        await hand.press("r")
        assert hand.client.previewed(MailAsk)[0].filter == "domain=dead.example"


async def test_the_worst_destination_stays_first_until_the_cursor_is_moved(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        table: Table[Destination] = hand.app.screen.query_one("#destinations", Table)
        rows = hand.client.seen.destinations
        hand.client.seen = replace(hand.client.seen, destinations=(rows[3], *rows[:3], *rows[4:]))
        await hand.rest()
        assert (table.cursor, table.top) == (0, 0)
        assert table.pointed == rows[3]
        await hand.press("down")
        hand.client.seen = replace(hand.client.seen, destinations=rows)
        await hand.rest()
        assert table.pointed == rows[0]


async def test_the_newest_event_stays_first_while_one_looks_at_the_top(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("6")
        fresh = Event(seq=9_000, at=NOW, kind="delivered", by="engine", message=50_000)
        hand.client.seen = replace(OVERVIEW, events=(*OVERVIEW.events, fresh))
        await hand.rest()
        assert _table(hand).cursor == 0
        await hand.press("down")
        again = replace(fresh, seq=9_001)
        hand.client.seen = replace(OVERVIEW, events=(*OVERVIEW.events, fresh, again))
        await hand.rest()
        assert _table(hand).cursor == 2


class _Endless(CannedClient):
    """Half a million rows, made as they are asked for."""

    total = 500_000

    async def queue(self, filter: str = "", sort: str = "id", offset: int = 0, limit: int = 100) -> Window:
        self._reach("queue", filter, sort, offset, limit)
        rows = tuple(entry(number + 1) for number in range(offset, min(offset + limit, self.total)))
        return Window(total=self.total, offset=offset, rows=rows)


async def test_half_a_million_rows_are_only_a_window(at_the_console: Console_) -> None:
    client = _Endless()
    async with at_the_console(client) as hand:
        await hand.press("2", "end")
        row = _table(hand).pointed
        assert row is not None
        assert row.message == 500_000
        assert len(_table(hand).rows) <= 200
        await hand.press("home", "pagedown", "enter")
        assert client.asks("message")
        assert max(asked[4] for asked in client.asks("queue")) <= 200


async def test_sorting_is_done_by_the_engine_and_turned_by_asking_again(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "N")
        assert hand.client.asks("queue")[-1][2] == "due"
        await hand.press("N")
        assert hand.client.asks("queue")[-1][2] == "-due"


async def test_a_filter_the_engine_refuses_is_told_why_and_can_be_mended(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "slash")
        await hand.type("state=gone")
        hand.client.refusal = views.Refusal(what="no such state", where="state=gone", allowed="waiting, relaying, held")
        await hand.pilot.press("enter")
        await hand.pilot.pause()
        front = hand.app.front
        assert front is not None
        hint = front.query_one("#hint").said  # type: ignore[attr-defined]
        assert "no such state (allowed: waiting, relaying, held)" in hint
        hand.client.refusal = None
        await hand.press("enter")
        assert front.filter == "state=gone"
        await hand.press("escape")
        assert front.filter == ""


async def test_a_frozen_view_stands_still_while_the_health_line_lives_on(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "p")
        hand.client.entries = ENTRIES[10:]
        hand.client.seen = replace(OVERVIEW, health=replace(canned.HEALTH, waiting=7))
        await hand.after(3)
        assert _table(hand).rows[0].id == "48201.1"
        front = hand.app.front
        assert front is not None
        assert "7 waiting" in front.query_one("#health").said  # type: ignore[attr-defined]
        await hand.press("p")
        assert _table(hand).rows[0].id == "48211.1"


async def test_going_back_finds_the_queue_as_it_was_left(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down", "down", "enter", "escape")
        row = _table(hand).pointed
        assert row is not None
        assert row.id == "48203.1"
        await hand.press("1", "2")
        assert _table(hand).pointed == row


async def test_only_lines_that_changed_are_painted_again(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2")
        table = _table(hand)
        painted: list[object] = []
        refresh = table.refresh

        def note(*regions: object, **more: object) -> object:
            painted.extend(regions)
            return refresh(*regions, **more)  # type: ignore[arg-type]

        table.refresh = note  # type: ignore[method-assign, assignment]
        hand.app.tick()
        assert painted == [], "no second has passed, and nothing has changed"
        for _ in range(20):  # in a minute each of the waiting rows one sees comes a minute nearer, one after the other
            painted.clear()
            await hand.after(1)
            lines = {region.y for region in painted}  # type: ignore[attr-defined]
            assert 1 in lines, "the row pointed at goes by the second"
            assert len(lines) <= 3, "the others in steps"
