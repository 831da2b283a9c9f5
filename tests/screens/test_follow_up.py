"""What becomes of an order is told in the status line of the console that gave it, as it develops and in the end."""

from msgspec.structs import replace

from console.follow_up import READ_FOR
from engine.control import views
from tests.screens.canned import NOW, CannedClient
from tests.screens.conftest import Console_

RETRIED = views.FollowUpView(
    operation=78, verb="retry", by="ann", at=NOW, text="81 retried: 81 still waiting", over=False,
    recipients=81, followed=81, waiting=81,
)  # fmt: skip
SOME = replace(RETRIED, text="81 retried: 3 delivered, 78 being sent", delivered=3, relaying=78, waiting=0)
ALL = replace(
    SOME, text="81 retried: 3 delivered, 78 not reached again: connection refused", blocked=78, relaying=0, over=True
)
DROPPED = replace(
    RETRIED, operation=77, verb="drop", over=True, text="12 messages (14 recipients) dropped; 1 was released meanwhile",
    waiting=0, dropped=14,
)  # fmt: skip


async def test_a_retry_is_followed_to_its_end(at_the_console: Console_) -> None:
    client = CannedClient()
    client.followed = RETRIED
    async with at_the_console(client) as hand:
        await hand.press("2", "r")
        client.followed = SOME
        await hand.after(READ_FOR - 1)
        assert hand.status.startswith(" ✓ retry: 12 messages"), "first the result can be read"
        client.followed = RETRIED
        await hand.after(1)
        assert hand.status.startswith(" ✓ retry: 12 messages"), "it stays until something has come of it"
        client.followed = SOME
        await hand.after(1)
        assert "◷ 81 retried: 3 delivered, 78 being sent" in hand.status
        client.followed = ALL
        await hand.after(1)
        assert "▲ 81 retried: 3 delivered, 78 not reached again: connection refused" in hand.status
        await hand.after(29)
        assert "78 not reached again" in hand.status, "it stays for its time"
        asked = len(client.asks("operation"))
        await hand.after(2)
        assert "not reached again" not in hand.status
        assert len(client.asks("operation")) == asked, "nobody is asked any more"


async def test_a_drop_reports_its_exact_result_once_it_cannot_be_undone(at_the_console: Console_) -> None:
    client = CannedClient()
    client.followed = DROPPED
    async with at_the_console(client) as hand:
        await hand.press("2", "D", "right", "enter")
        await hand.after(9)
        assert "will be dropped in 1 s, u undoes" in hand.status
        assert not client.asks("operation"), "before, there is nothing to ask for"
        await hand.after(1)
        assert "✓ 12 messages (14 recipients) dropped; 1 was released meanwhile" in hand.status
        assert client.asks("operation")[0] == ("operation", 77)


async def test_what_was_undone_is_followed_no_more(at_the_console: Console_) -> None:
    client = CannedClient()
    client.followed = DROPPED
    async with at_the_console(client) as hand:
        await hand.press("2", "D", "right", "enter", "u")
        await hand.after(11)
        assert "dropped" not in hand.status
        assert not client.asks("operation")


async def test_what_is_said_otherwise_is_not_talked_over(at_the_console: Console_) -> None:
    client = CannedClient()
    client.followed = RETRIED
    async with at_the_console(client) as hand:
        await hand.press("2", "r")
        hand.app.tell("✗ refused", "bad")
        client.followed = ALL
        await hand.after(5)
        assert "✗ refused" in hand.status
        await hand.after(26)
        assert "78 not reached again" in hand.status, "it is said when that is over"


async def test_an_engine_that_knows_nothing_of_it_is_not_asked_again(at_the_console: Console_) -> None:
    client = CannedClient()
    client.followed = RETRIED
    async with at_the_console(client) as hand:
        await hand.press("2", "r")
        client.followed = None
        await hand.after(READ_FOR)
        asked = len(client.asks("operation"))
        await hand.after(1)
        assert len(client.asks("operation")) == asked
        assert "retry: 12 messages" in hand.status
