"""What is shown carries no byte that steers a terminal, wherever in an answer it stands."""

import json
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from engine.control.presentation import cleaned, encoded
from tests.screens import canned
from tests.screens.hostile import POISON, poisoned

SHOWN = {
    "overview": canned.OVERVIEW, "message": canned.MESSAGE, "transcript": canned.TRANSCRIPT, "reasons": canned.REASONS,
    "probe": canned.PROBED, "entries": canned.ENTRIES,
}  # fmt: skip


def texts(shown: Any) -> Iterator[str]:
    if isinstance(shown, str):
        yield shown
    elif isinstance(shown, dict | list):
        for one in shown.values() if isinstance(shown, dict) else shown:
            yield from texts(one)


@pytest.mark.parametrize("name", SHOWN)
def test_no_text_of_an_answer_steers_a_terminal_or_is_without_end(name: str) -> None:
    found = list(texts(json.loads(encoded(poisoned(SHOWN[name])))))
    assert len(found) > 10
    assert max(map(len, found)) <= 1000
    bad = {char for text in found for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"}}
    assert bad == set()


@pytest.mark.parametrize("name", SHOWN)
def test_what_has_nothing_to_be_cleaned_is_the_same(name: str) -> None:
    assert cleaned(SHOWN[name]) is SHOWN[name]


class _Nested(Struct):
    inner: Any


@pytest.mark.parametrize("unknown", [{"a": POISON}, b"bytes", object(), _Nested((_Nested({1, 2}),))])
def test_what_is_not_known_is_not_shown(unknown: object) -> None:
    with pytest.raises(TypeError, match="is not shown"):
        encoded(unknown)
