"""The screen of reasons: verbs act on the mail of the reason pointed at, and Enter shows that mail."""

from engine.model.filter import Filter
from engine.model.verbs import MailAsk, Retry
from tests.screens.canned import REASONS
from tests.screens.conftest import Console_

BUSY = 'group="450 4.2.1 <address>: mailbox busy, try again in <n> seconds"'


async def test_a_verb_acts_on_the_reason_pointed_at_after_a_question(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("5", "down", "r")
        [action] = hand.client.previewed(MailAsk)
        assert (type(action), action.filter) == (Retry, BUSY)
        (term,) = Filter.parse(action.filter).terms
        assert term.value == REASONS[1].group
        assert not hand.client.did(MailAsk)


async def test_enter_shows_the_mail_of_a_reason_and_a_filter_looks_within_it(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("5", "down", "enter", "slash")
        assert hand.client.asks("queue")[-1][1] == BUSY
        await hand.type("state=held")
        await hand.press("enter")
        assert hand.client.asks("queue")[-1][1] == f"{BUSY} state=held"


async def test_the_reasons_are_asked_for_only_while_one_looks_at_them(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "3")
        assert not hand.client.asks("reasons")
        await hand.press("5")
        assert hand.client.asks("reasons")
