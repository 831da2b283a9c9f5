"""What breaks in the console is written down with its traceback, and the status line says where."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from console import faults
from console.app import Console
from console.format import Moment
from console.widgets.columns import Column, Fitted
from console.widgets.table import Table
from tests.logs import logging_as_before
from tests.screens.conftest import Console_


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """Where the console writes down what breaks."""
    with logging_as_before():
        faults.keep_in(tmp_path / "console.log")
        yield tmp_path / "console.log"


async def test_an_error_is_written_down_and_the_status_line_says_where(at_the_console: Console_, written: Path) -> None:
    async with at_the_console() as hand:
        hand.client.broken = ValueError("what nobody thought of")
        hand.app.poll_soon()
        await hand.pilot.pause()
        assert f"the console stumbled (ValueError); it goes on; see {written}" in hand.status
    log = written.read_text()
    assert log.count("Traceback") == 1
    assert "ValueError: what nobody thought of" in log
    assert "in _guarded" in log


def odd(row: object, moment: Moment) -> tuple[str, str]:
    raise ValueError("an odd value")


async def test_a_value_that_cannot_be_shown_is_written_down_once(at_the_console: Console_, written: Path) -> None:
    async with at_the_console() as hand:
        table = hand.app.screen.query(Table).first()
        table._fitted = [Fitted(Column("odd", 5, odd), 5)]
        assert [table._line(y).text.strip(" ▸") for y in (1, 2, 1)] == ["?", "?", "?"]
    log = written.read_text()
    assert log.count("Traceback") == 1
    assert "ValueError: an odd value" in log


async def test_what_ends_the_console_is_written_down(
    at_the_console: Console_, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Console) -> None:
        raise LookupError("beyond help")

    monkeypatch.setattr(Console, "leave", broken)

    async def work() -> None:
        async with at_the_console() as hand:
            hand.app.call_later(hand.app.leave)
            await hand.pilot.pause()

    with pytest.raises(LookupError, match="beyond help"):
        await work()
    assert "LookupError: beyond help" in written.read_text()
