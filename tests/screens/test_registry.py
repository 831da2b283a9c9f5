"""One registry: what can be done has a key, a word, a help text and a place in the palette, and nothing has two."""

from typing import Any

import pytest

from console.actions import ACTIONS, MOVES, RESERVED, SORT_LETTERS, Registry
from console.screens.palette import manual
from console.widgets.columns import Column
from console.widgets.panes import DestinationsPane, HostsPane, RelayersPane
from console.widgets.rows import QUEUE
from engine.model.verbs import VERBS, MailAsk
from tests.screens.conftest import Console_

CHANGING = {verb.word for verb in VERBS}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
async def test_every_action_has_key_word_help_palette_entry_and_handler(
    action: object, at_the_console: Console_
) -> None:
    registry = Registry()
    named = next(known for known in ACTIONS if known is action)
    assert named.keys or named.name == "release-rule", "which is named by its number alone"
    assert registry.command(named.word) == (named, "")
    assert named in registry.found(named.label)
    text = "".join(piece for para in manual(registry) for piece, _ in para.pieces).replace("\xa0", " ")
    assert named.help in text
    assert f":{named.word}" in text


async def test_every_action_is_bound_and_handled(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        bound = hand.app._bindings.key_to_bindings
        for action in ACTIONS:
            assert action.name in hand.app._handlers
            for key in action.keys:
                assert key in bound, f"{key} of {action.name}"


def test_no_key_does_two_things() -> None:
    keys = [key for action in ACTIONS for key in action.keys] + [key for move in MOVES for key in move.keys]
    assert len(keys) == len(set(keys))


def test_keys_of_terminals_and_tmux_are_left_alone() -> None:
    assert not RESERVED & {key for action in ACTIONS for key in action.keys}
    assert not RESERVED & {key for move in MOVES for key in move.keys}


def test_no_word_is_the_beginning_of_trouble() -> None:
    words = [action.word for action in ACTIONS]
    assert len(words) == len(set(words))
    assert "flush" not in words


def test_the_letters_that_sort_are_those_of_the_columns_and_stand_in_their_titles() -> None:
    columns: list[Column[Any]] = list(QUEUE)
    for pane in (DestinationsPane(), RelayersPane(), HostsPane()):
        columns += list(pane.table.columns)
    letters = {column.letter for column in columns if column.letter}
    assert letters <= set(SORT_LETTERS)
    assert all(column.letter.lower() in column.title for column in columns if column.letter)
    assert letters == set(SORT_LETTERS), "no letter is bound in vain"


async def test_read_only_has_no_verbs_anywhere(at_the_console: Console_) -> None:
    async with at_the_console(read_only=True) as hand:
        registry = hand.app.registry
        assert not CHANGING & {action.name for action in registry}
        keys = {key for action in ACTIONS if action.verb for key in action.keys}
        text = "".join(piece for para in manual(registry) for piece, _ in para.pieces)
        assert "Bounce" not in text
        assert registry.command("drop domain=example.org")[0] is None
        assert registry.found("bounce") == []
        await hand.press("2")
        for key in sorted(keys):
            hand.app.tell("")
            await hand.press(key)
            assert "this console may only look" in hand.status, key
        assert not hand.client.did(MailAsk)
        assert not hand.client.previewed(MailAsk)
        front = hand.app.front
        assert front is not None
        assert "read-only" in front.query_one("#health").said  # type: ignore[attr-defined]
