"""One word for one thing: what acts on the relay is called alike in the console, the commands and over HTTP."""

import inspect
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from console.actions import ACTIONS, Registry
from console.cli import app
from console.commands import acting, operating
from engine.control import views
from engine.control.client import Client
from tests.unit.fake_relay import FakeEngine, short_folder

# The words of `end`, which names no thing of its own: what it ends is in its other words.
CONSOLE = {action.word for action in ACTIONS if action.changes} | {"release-rule"}
COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]


def http() -> set[str]:
    with short_folder() as folder:
        server = FakeEngine(Path(folder)).server()
    assert {route.method for route in server.looking} == {"GET"}
    return {route.path.removeprefix("/v1/") for route in server.acting}


def commands_that_act() -> set[str]:
    own = {
        name.replace("_", "-")
        for module in (acting, operating)
        for name, one in inspect.getmembers(module, inspect.isfunction)
        if one.__module__ == module.__name__ and "context" in inspect.signature(one).parameters
    }
    return {name for name in own & COMMANDS if name not in ("explain", "overrides")}


def test_console_commands_and_http_have_the_same_words() -> None:
    assert http() == CONSOLE == commands_that_act()


@pytest.mark.parametrize("word", sorted(http()))
def test_each_word_is_known_to_command_and_hint_alike(word: str) -> None:
    registry = Registry()
    action, rest = registry.command(f"{word} 3")
    assert action is not None
    assert registry.near(f"{word} 3") == [action]
    assert rest in ("3", "rule 3", "override 3")
    assert word in (action.word, *action.also)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("mark-bad mx.example 30m", ("bad", "mx.example 30m")),
        ("mark-g mx.example", ("good", "mx.example")),
        ("bad mx.example", ("bad", "mx.example")),
        ("good mx.example", ("good", "mx.example")),
        ("goo mx.example", ("good", "mx.example")),
        ("MARK-GOOD mx.example", ("good", "mx.example")),
        ("end-override example.org", ("end", "override example.org")),
        ("end-override", ("end", "")),
        ("release-rule 3", ("end", "rule 3")),
        ("release-rule", ("end", "rule")),
        ("end 3", ("end", "3")),
        ("end example.org", ("end", "example.org")),
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
    with short_folder() as folder:
        async with FakeEngine(Path(folder)).serving() as client:
            said = [await one for one in _asked(client)]
    assert {result.verb for result in said} <= http()
    assert len({result.verb for result in said}) == len(said) == 16
    assert set(get_args(views.Followed)) <= http()


def _asked(client: Client) -> Iterator[Awaitable[views.ResultView]]:
    yield client.check()
    for verb in get_args(views.Verb):
        yield client.act(verb, views.Action(filter="id=7"))
    yield client.undo(41)
    yield client.suspend(views.Suspend(destination="example.org", seconds=60, reason=""))
    yield client.resume("example.org")
    yield client.mark_bad(views.MarkBad(host="mx1.dead.example"))
    yield client.mark_good("mx1.dead.example")
    yield client.hold_rule(views.HoldRule(filter="from=a@b.example", seconds=60, reason=""))
    yield client.release_rule(1)
    yield client.override(views.Override(destination="example.org", to="mx.example.net", seconds=60, reason=""))
    yield client.end_override("example.org")
    yield client.close(5)
