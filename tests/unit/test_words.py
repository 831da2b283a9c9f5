"""One word for one thing: what acts on the relay is called alike in the console, the commands and over HTTP."""

from pathlib import Path

import pytest
from typer.main import get_command

from console.actions import ACTIONS, Registry
from console.cli import app
from console.widgets.rows import EVENTS
from engine.control.verbs import Verbs
from engine.model.verbs import VERBS, Verb, verb_of
from tests.asks import ask_of
from tests.unit.fake_relay import FakeEngine, node, short_folder

WORDS = {verb.word for verb in VERBS}
COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]


def http() -> set[str]:
    with short_folder() as folder:
        server = FakeEngine(Path(folder)).server()
    assert {route.method for route in server.looking} == {"GET"}
    assert {route.path for route in server.listing} == {"/v1/suppress", "/v1/unsuppress"}, "whose command is suppress"
    return {route.path.removeprefix("/v1/") for route in server.acting}


def test_console_commands_and_http_have_the_words_of_the_table() -> None:
    assert http() == {action.word for action in ACTIONS if action.verb} == WORDS
    assert WORDS | {"suppress"} <= COMMANDS
    assert len(WORDS) == len(VERBS) == len({verb.ask for verb in VERBS})


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.word)
def test_each_verb_can_be_carried_out_and_is_told_by_an_event_that_has_a_glyph(verb: Verb) -> None:
    assert callable(getattr(Verbs, verb.word.replace("-", "_")))
    assert verb.event in EVENTS
    assert verb.is_previewed or not verb.ending
    assert bool(verb.follows) == (verb.word not in ("check", "undo", "probe", "undrain"))


@pytest.mark.parametrize("word", sorted(WORDS))
def test_each_word_is_known_to_command_and_hint_alike(word: str) -> None:
    registry = Registry()
    action, rest = registry.command(f"{word} 3")
    assert action is not None
    assert registry.near(f"{word} 3") == [action]
    assert (action.word, rest) == (word, "3")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("mark-bad mx.example 30m", ("mark-bad", "mx.example 30m")),
        ("mark-g mx.example", ("mark-good", "mx.example")),
        ("bad mx.example", ("mark-bad", "mx.example")),
        ("good mx.example", ("mark-good", "mx.example")),
        ("goo mx.example", ("mark-good", "mx.example")),
        ("MARK-GOOD mx.example", ("mark-good", "mx.example")),
        ("end-override example.org", ("end-override", "example.org")),
        ("end-override", ("end-override", "")),
        ("release-rule 3", ("release-rule", "3")),
        ("release-rule", ("release-rule", "")),
        ("end 3", ("release-rule", "3")),
        ("end example.org", ("end-override", "example.org")),
        ("release from=a@b.example", ("release", "from=a@b.example")),
        ("mark", ("mark", "")),
    ],
)
def test_old_words_and_beginnings_still_do(line: str, meant: tuple[str, str]) -> None:
    action, rest = Registry().command(line)
    assert action is not None
    assert (action.name, rest) == meant


@pytest.mark.parametrize("line", ["mark-", "re x", "b", "flush", ""])
def test_what_may_mean_several_things_means_none(line: str) -> None:
    registry = Registry()
    assert registry.command(line)[0] is None
    assert len(registry.near(line)) != 1


async def test_an_answer_says_its_verb_by_the_same_word() -> None:
    asks = [ask_of(verb) for verb in VERBS if verb.word != "probe"]
    with short_folder() as folder:
        engine = FakeEngine(Path(folder))
        engine.queue.nodes.name, engine.queue.nodes.there = "a", [node("a", is_this=True), node("b")]
        async with engine.serving() as client:
            said = [await client.ask(ask) for ask in asks]
    assert [result.verb for result in said] == [verb_of(ask).word for ask in asks]
