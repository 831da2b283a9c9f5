"""Random keys in bursts at the console of a busy relay: no verb acts on what was not meant, and nothing gets stuck."""

import random

import pytest

from console.actions import Registry
from tests.interop.keyfuzz import Judge, fuzz

KEYS = 500


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40)])
async def test_of_random_keys_each_is_done_for_what_was_pointed_at(columns: int, lines: int) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    judge = await fuzz(KEYS, seed, columns, lines)
    assert not judge.wrong, f"seed {seed}: {judge.wrong[0]}"
    assert judge.done >= KEYS
    assert judge.counts["asked"] > 5, "it did something"


@pytest.mark.parametrize("line", [":suspend demo.example", ":susp\tdemo.example"])
@pytest.mark.parametrize(("asked", "is_wrong"), [("demo.example", False), ("other.example", True)])
def test_the_judge_knows_what_a_typed_command_is_for(line: str, asked: str, is_wrong: bool) -> None:
    drawn = {"kind": "key", "screen": "Overview", "layer": False, "row": "", "way": "", "where": "", "tab": "1"}
    pressed = [{"\t": "tab", " ": "space"}.get(char, char) for char in line] + ["enter"]
    judge = Judge(pressed)
    for key, char in zip(pressed, [*line, "\r"], strict=True):
        judge.read({**drawn, "key": key, "character": char, "typing": key != ":"})
    judge.read({"kind": "asked", "what": "suspend", "body": {"destination": asked, "seconds": 60.0, "note": "x"}})
    assert bool(judge.wrong) is is_wrong, judge.wrong


def test_the_judge_takes_no_key_without_a_character_for_what_is_typed_into_the_palette() -> None:
    """pagedown moves nothing in the palette; taken for a letter, it would begin the choice anew at its first row."""
    keys = [("ctrl+p", "\x10", "Overview"), ("r", "r", "Palette"), ("down", "", "Palette"), ("pagedown", "", "Palette")]
    keys.append(("enter", "\r", "Palette"))
    second = Registry().found("r")[1].word
    judge = Judge([key for key, _, _ in keys])
    for key, character, screen in keys:
        drawn = {"row": "48213.2", "way": "", "where": "", "tab": "2", "layer": screen == "Palette", "typing": False}
        judge.read({**drawn, "kind": "key", "screen": screen, "key": key, "character": character})
    judge.read({"kind": "asked", "what": second, "body": {"filter": "id=48213.2"}})
    assert judge.wrong == []
