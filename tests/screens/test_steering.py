"""Mail to come and connections: what is asked of the engine for each key and each typed word."""

import pytest
from msgspec.structs import replace

from console.screens.answers import ExplainScreen, OverridesScreen, ProbeScreen
from console.screens.dialogs import Dialog
from engine.model.message import Selection
from engine.model.verbs import Close, EndOverride, HoldRule, Override, ReleaseRule
from tests.screens import canned
from tests.screens.conftest import Console_, Hand


async def typed(hand: Hand, line: str) -> None:
    """Type a command and have it done."""
    await hand.press("colon")
    await hand.type(line)
    await hand.press("enter")
    await hand.rest()


@pytest.mark.parametrize(
    ("keys", "subject"), [(("2", "down"), "48202.1"), ((), "gmail.example"), (("enter", "escape"), "gmail.example")]
)
async def test_e_explains_what_is_pointed_at(at_the_console: Console_, keys: tuple[str, ...], subject: str) -> None:
    async with at_the_console() as hand:
        await hand.press(*keys, "e")
        assert hand.client.asks("explain") == [("explain", subject)]
        assert isinstance(hand.app.front, ExplainScreen)
        await hand.press("e")  # asks anew, of the message it tells of, and stands in the place of the first answer
        assert hand.client.asks("explain")[-1] == ("explain", "48202.1")
        await hand.press("escape")
        assert not isinstance(hand.app.front, ExplainScreen)


def test_an_explanation_names_what_the_verbs_are_for() -> None:
    one = ExplainScreen(replace(canned.EXPLAINED, subject="48202"))
    target = one.target()
    assert target is not None
    assert one.crumbs() == ["Explain", target.what] == ["Explain", "48202.1"]


async def test_an_address_can_be_explained_by_its_name(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await typed(hand, "explain bob@example.org")
        assert hand.client.asks("explain") == [("explain", "bob@example.org")]


async def test_a_host_is_probed_and_its_answer_shown(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("4", "i")
        [(_, host)] = hand.client.asks("probe")
        assert host == "mx1.dead.example"
        assert isinstance(hand.app.front, ProbeScreen)


async def test_a_connection_is_closed_after_a_question(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("3", "x")
        assert isinstance(hand.app.screen, Dialog)
        await hand.press("enter")  # Cancel has the focus
        assert not hand.client.did(Close)
        await hand.press("x", "right", "enter")
        [asked] = hand.client.did(Close)
        await hand.press("enter", "x", "right", "enter")
        assert hand.client.did(Close) == [asked, asked]


async def test_a_destination_is_overridden_with_all_that_was_asked(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("v")
        await hand.type("gw.example:2525")
        await hand.press("tab", "tab")
        await hand.type("their MX is wrong")
        await hand.press("tab", "tab", "enter")
        ask = Override(destination="gmail.example", to="gw.example:2525", seconds=3600, note="their MX is wrong")
        assert hand.client.did(Override) == [ask]


async def test_what_is_typed_whole_asks_no_more(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await typed(hand, "override example.org gw.example 30m their MX is wrong")
        ask = Override(destination="example.org", to="gw.example", seconds=1800, note="their MX is wrong")
        assert hand.client.did(Override) == [ask]
        await typed(hand, "hold-rule from=a@b.example domain=c.example 2h runaway script")
        rule = HoldRule(filter="from=a@b.example domain=c.example", seconds=7200, note="runaway script")
        assert hand.client.did(HoldRule) == [rule]
        hand.client.selection = Selection(messages=1, recipients=1, newest=1)
        await typed(hand, "end 3")
        assert hand.client.did(ReleaseRule) == [ReleaseRule(rule=3)]
        await typed(hand, "end example.org")
        assert hand.client.did(EndOverride) == [EndOverride(destination="example.org")]
        await typed(hand, "close 5")
        await hand.press("right", "enter")
        assert hand.client.did(Close) == [Close(relayer=5)]


async def test_what_ends_a_rule_ends_no_override_and_the_other_way_round(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        hand.client.selection = Selection(messages=1, recipients=1, newest=1)
        await typed(hand, "release-rule 3")
        assert hand.client.did(ReleaseRule) == [ReleaseRule(rule=3)]
        await typed(hand, "end-override example.org")
        assert hand.client.did(EndOverride) == [EndOverride(destination="example.org")]
        await typed(hand, "release-rule example.org")
        assert "name a hold rule by its number" in hand.status
        await typed(hand, "release-rule")
        assert "name a hold rule by its number" in hand.status
        await typed(hand, "end-override 3")
        assert hand.client.did(EndOverride)[1:] == [EndOverride(destination="3")], (
            "the engine says that it is no domain"
        )
        assert len(hand.client.did(ReleaseRule)) == 1


async def test_while_a_word_is_typed_the_hint_names_what_enter_will_do(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("colon")
        await hand.type("mark-bad mx1.example.org")
        front = hand.app.front
        assert front is not None
        hint = front.query_one("#hint").said  # type: ignore[attr-defined]
        assert hint.startswith(" mark-bad [HOST]")


async def test_a_rule_that_begins_with_no_term_says_how_it_is_written(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await typed(hand, "hold-rule everything 2h")
        assert "begins with from=" in hand.status
        assert not hand.client.did(HoldRule)


async def test_the_rule_offered_is_of_the_destination_pointed_at(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("H", "tab", "tab", "tab", "tab", "enter")
        [ask] = hand.client.did(HoldRule)
        assert (ask.filter, ask.seconds) == ("domain=gmail.example", 3600)


async def test_all_that_stands_is_one_key_away_and_lives_on(at_the_console: Console_) -> None:
    async with at_the_console(read_only=True) as hand:
        await hand.press("7")
        assert isinstance(hand.app.front, OverridesScreen)
        asked = len(hand.client.asks("overrides"))
        await hand.rest()
        assert len(hand.client.asks("overrides")) == asked + 1
