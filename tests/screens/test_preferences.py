"""What an operator has chosen to see is there in the next console; whatever is wrong with the file, one opens."""

from pathlib import Path

import pytest

from console.preferences import Preferences, file_of_user
from tests.screens.conftest import Console_


async def test_the_order_of_a_list_is_kept_from_one_console_to_the_next(
    at_the_console: Console_, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "console.json"
    async with at_the_console(preferences=Preferences(file)) as hand:
        await hand.press("2", "A", "A")
        assert hand.client.asks("queue")[-1][2] == "-arrived"
    async with at_the_console(preferences=Preferences(file)) as hand:
        await hand.press("2")
        assert hand.client.asks("queue")[-1][2] == "-arrived"
        await hand.press("1", "N")
    assert Preferences(file).order("queue", {"arrived"}, "id") == "-arrived"
    assert Preferences(file).order("destinations", {"name"}, "-waiting") == "name"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"order": {"queue": 7}}', b'{"order": {"queue": "no such"}}', b"\xff"]
)
async def test_what_cannot_be_read_counts_as_not_chosen(
    content: bytes, at_the_console: Console_, tmp_path: Path
) -> None:
    file = tmp_path / "console.json"
    file.write_bytes(content)
    async with at_the_console(preferences=Preferences(file)) as hand:
        await hand.press("2")
        assert hand.client.asks("queue")[-1][2] == "id"


async def test_where_it_cannot_be_kept_it_counts_for_this_console_and_that_is_said(
    at_the_console: Console_, tmp_path: Path
) -> None:
    (tmp_path / "in the way").write_text("a file")
    async with at_the_console(preferences=Preferences(tmp_path / "in the way" / "console.json")) as hand:
        await hand.press("2", "A")
        assert hand.client.asks("queue")[-1][2] == "arrived"
        assert "it cannot be kept" in hand.status


def test_each_user_has_a_file_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert file_of_user() == tmp_path / "smarthost" / "console.json"
