"""Which columns stand in a list, and how wide: names and why before all that matters less."""

from dataclasses import replace as changed
from datetime import UTC
from typing import Any

import pytest
from msgspec.structs import replace

from console.format import Moment
from console.widgets.columns import GAP, REASON, Column, Need, fit
from console.widgets.rows import DESTINATIONS, EVENT_ROWS, HOSTS, QUEUE, REASONS, RELAYERS
from tests.screens import canned
from tests.screens.canned import ENTRIES, NOW

MOMENT = Moment(NOW, UTC)
LISTS: dict[str, tuple[tuple[Column[Any], ...], tuple[Any, ...]]] = {
    "destinations": (DESTINATIONS, canned.DESTINATIONS),
    "relayers": (RELAYERS, canned.RELAYERS),
    "hosts": (HOSTS, canned.HOSTS),
    "reasons": (REASONS, canned.REASONS),
    "events": (EVENT_ROWS, canned.EVENTS),
    "queue": (QUEUE, ENTRIES),
}


def fitted(columns: tuple[Column[Any], ...], rows: tuple[Any, ...], width: int) -> dict[str, int]:
    """The columns in so many cells, by title, and their widths."""
    needs = [Need.of([column.cell(row, MOMENT)[0] for row in rows]) for column in columns]
    return {each.column.title: each.width for each in fit(columns, width, needs)}


@pytest.mark.parametrize("width", [57, 64, 77, 97, 117, 197])
@pytest.mark.parametrize("name", LISTS)
def test_columns_never_take_more_than_there_is(name: str, width: int) -> None:
    widths = fitted(*LISTS[name], width)
    assert sum(widths.values()) + GAP * (len(widths) - 1) <= width


@pytest.mark.parametrize("name", ["destinations", "hosts", "reasons", "events", "queue"])
def test_the_reason_takes_what_is_left(name: str) -> None:
    columns, rows = LISTS[name]
    [reason] = [column.title for column in columns if column.rest]
    widths = fitted(columns, rows, 197)
    assert sum(widths.values()) + GAP * (len(widths) - 1) == 197
    assert widths[reason] >= REASON


def test_the_reason_has_what_it_needs_before_columns_of_low_rank_are_there() -> None:
    blocked = tuple(replace(row, name=f"d{index}.example") for index, row in enumerate([canned.DESTINATIONS[1]] * 9))
    widths = fitted(DESTINATIONS, blocked, 77)
    assert list(widths) == ["destination", "waiting", "oldest", "status, last reply"]
    assert widths["status, last reply"] == REASON


def test_a_column_of_zeros_goes_before_one_that_says_something() -> None:
    quiet = tuple(replace(row, due=0, held=0, connections=0, rate_out=0.0) for row in canned.DESTINATIONS[:3])
    assert "next try" in fitted(DESTINATIONS, quiet, 94)
    assert "held" not in fitted(DESTINATIONS, quiet, 94)
    assert "held" in fitted(DESTINATIONS, quiet, 197), "where there is room nothing goes"


@pytest.mark.parametrize(("name", "title"), [("destinations", "destination"), ("hosts", "host"), ("relayers", "host")])
def test_a_name_is_not_cut_while_cells_are_free(name: str, title: str) -> None:
    columns, rows = LISTS[name]
    long = "mx-with-a-name-of-some-length.example"
    field = "name" if name == "destinations" else "host"
    widths = fitted(columns, tuple(replace(row, **{field: long}) for row in rows), 117)
    assert widths[title] >= len(long)


def test_one_long_name_does_not_take_the_reason_from_all_others() -> None:
    names = ("short.example",) * 9 + ("a-very-long-name-that-nobody-can-read.subdomain.example.com",)
    rows = tuple(replace(canned.DESTINATIONS[1], name=name) for name in names)
    assert fitted(DESTINATIONS, rows, 77)["status, last reply"] == REASON


def test_reasons_name_a_domain_at_eighty_columns() -> None:
    assert "most of it for" in fitted(REASONS, canned.REASONS, 77)


def test_a_list_without_rows_has_its_columns() -> None:
    assert [each.column.title for each in fit(QUEUE, 77)][:3] == ["id", "state", "to"]
    only = changed(QUEUE[0], width=30)
    assert fit([only], 10)[0].width == 10
