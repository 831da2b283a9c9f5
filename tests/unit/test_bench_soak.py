"""The judges of the soak: what it says is wrong when it is, and only then."""

import re
from pathlib import Path

from engine.model.event import Event
from engine.model.outcome import Outcome
from tests.bench.__main__ import listed
from tests.bench.soak.ledger import GATHERED, Ledger, p95
from tests.bench.soak.operators import FOLLOWED, OF_THE_MOMENT, VIEWS
from tests.bench.soak.tables import FEW_DEAD, Measured, Table, dead_fault, growth_fault, worked
from tests.bench.soak.vitals import Vitals, count_fault, line_through, memory_fault
from tests.unit.fake_relay import FakeEngine

SENDER = "s1@source.example"


def history(*memory: float) -> list[Vitals]:
    return [Vitals(float(at), size, 50, 10, 0.0) for at, size in enumerate(memory)]


def ledger(*recipients: str) -> Ledger:
    found = Ledger()
    found.yes(SENDER, recipients, 100.0, healthy=recipients[:1])
    return found


def test_every_bench_is_listed_and_says_what_it_is() -> None:
    found = listed()
    assert {"soak", "console", "million", "relaying", "tarpits", "pipelining"} <= found.keys()
    assert all(found.values())


async def test_every_view_that_the_engine_offers_is_polled(tmp_path: Path) -> None:
    routes = {route.path for route in FakeEngine(tmp_path).server().looking if route.method == "GET"}
    polled = [view.partition("?")[0] for view in (*VIEWS, *(one.format(7) for one in OF_THE_MOMENT), FOLLOWED)]
    patterns = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in routes}
    missing = {path for path, pattern in patterns.items() if not any(map(pattern.fullmatch, polled))}
    assert not missing, "add it to VIEWS of tests/bench/soak/operators.py"


def test_memory_that_rises_to_the_end_is_a_fault() -> None:
    said, is_wrong = memory_fault(history(*(100 + 0.1 * second for second in range(1200))))
    assert is_wrong
    assert "+59" in said


def test_memory_that_rose_at_first_and_then_swings_is_none() -> None:
    assert not memory_fault(history(*(min(150, second) + 20 * (second % 7 == 0) for second in range(1200))))[1]


def test_one_high_measurement_moves_no_line() -> None:
    assert abs(line_through([(float(at), 900.0 if at == 95 else 100.0) for at in range(100)]).rise) < 1.0


def test_a_count_that_grows_is_a_fault() -> None:
    assert count_fault([50 + second // 10 for second in range(1200)], 25)[1]
    assert not count_fault([50 + second % 40 for second in range(1200)], 25)[1]


def test_what_was_answered_and_is_nowhere_is_lost() -> None:
    assert ledger("a@x.example", "b@x.example").verdict(["b@x.example"]).lost == ("a@x.example",)


def test_a_word_of_the_relay_alone_delivers_nothing() -> None:
    books = ledger("a@x.example")
    books.happened([Event(at=101.0, kind="delivered", recipient="a@x.example")])
    assert books.verdict([]).lost == ("a@x.example",)


def test_what_was_returned_must_have_been_told() -> None:
    books = ledger("a@x.example")
    books.happened([Event(at=101.0, kind="returned", recipient="a@x.example", seq=1)])
    assert books.verdict([]).untold == ()  # it may be on its way
    books.happened([Event(at=102.0 + GATHERED, kind="dropped", by="ann", recipient="z@x.example", seq=2)])
    assert books.verdict([]).untold == ("a@x.example",)
    assert books.verdict([SENDER]).untold == ()
    books.taken([SENDER], 103.0, True)
    assert books.verdict([]).untold == ()


def test_a_drop_has_a_name() -> None:
    books = ledger("a@x.example")
    books.happened([Event(at=101.0, kind="dropped", recipient="a@x.example")])
    assert books.verdict([]).nameless == ("a@x.example",)


def test_a_copy_needs_a_record() -> None:
    books = ledger("a@x.example")
    books.taken(["a@x.example"], 101.0, True)
    books.taken(["a@x.example"], 102.0, True)
    assert books.verdict([]).unexplained == ("a@x.example",)
    flagged = Outcome(kind="transient", text="lost", may_duplicate=True)
    books.happened([Event(at=102.0, kind="deferred", recipient="a@x.example", outcome=flagged)])
    assert books.verdict([]).unexplained == ()


def test_healthy_mail_that_never_came_counts_with_its_age() -> None:
    books = ledger("a@x.example", "slow@y.example")
    assert books.times(160.0) == [60.0]
    books.taken(["a@x.example"], 100.5, True)
    assert books.times(160.0) == [0.5]
    assert p95([0.1] * 99 + [9.0]) < 1.0
    assert p95([0.1] * 90 + [9.0] * 10) == 9.0


def tables(*sizes: float, dead: int = 0) -> list[Measured]:
    """An entry table of these sizes, each a minute later, with a thousand rows that are not dead."""
    return [
        Measured(
            60.0 * minute,
            {"entry": Table(name="entry", live=1000, dead=dead, vacuums=minute, heap=size, indexes=0.0, apart=0.0)},
        )
        for minute, size in enumerate(sizes)
    ]


def test_a_table_that_grows_to_the_end_is_a_fault() -> None:
    said, is_wrong = growth_fault(tables(*(float(10 * minute) for minute in range(30))))
    assert is_wrong
    assert "entry 220.0 MiB +140.0 (at most +55.0)" in said


def test_a_table_that_grew_at_first_and_then_swings_is_none() -> None:
    assert not growth_fault(tables(*(min(100.0, 20.0 * minute) + minute % 3 for minute in range(30))))[1]


def test_rows_that_stay_dead_are_a_fault() -> None:
    assert dead_fault(tables(1.0, 1.0, 1.0, dead=FEW_DEAD + 1))[1]
    assert not dead_fault(tables(1.0, 1.0, 1.0, dead=FEW_DEAD))[1]


def test_of_what_was_not_measured_nothing_is_well() -> None:
    assert growth_fault([])[1]
    assert dead_fault([])[1]


def test_the_work_of_autovacuum_stands_in_the_log() -> None:
    log = """LOG:  automatic vacuum of table "postgres.smarthost.entry": index scans: 1
	pages: 0 removed, 12 remain, 12 scanned (100.00% of total)
	system usage: CPU: user: 0.01 s, system: 0.00 s, elapsed: 1.25 s
LOG:  automatic analyze of table "postgres.smarthost.entry"
	system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.50 s
LOG:  automatic aggressive vacuum of table "postgres.pg_catalog.pg_class": index scans: 0
	system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.25 s
"""
    assert worked(log) == {"vacuum": 1.5, "analyze": 0.5}
