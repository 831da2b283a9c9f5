"""The judge of the bench of a million: what it marks when many take longer than few."""

from tests.bench.million import SOON, judged


def test_what_takes_hardly_longer_is_flat() -> None:
    assert judged(2.0, 5.9, 1.0, 1.0, moves=False) == "flat"


def test_what_grows_as_it_does_in_sqlite_only_grows() -> None:
    assert judged(2.0, 100.0, 1.0, 30.0, moves=False) == "grows"  # 50 times as long, and 30 times
    assert judged(2.0, 100.0, 50.0, 120.0, moves=False) == "grows"  # and quicker than that all the same


def test_what_grows_where_sqlite_does_not_is_worse() -> None:
    assert judged(2.0, 100.0, 1.0, 3.0, moves=False) == "WORSE"


def test_what_moves_mail_must_be_quick_however_flat_it_is() -> None:
    assert judged(SOON, SOON + 1, SOON, SOON, moves=True) == "SLOW"
    assert judged(SOON, SOON + 1, SOON, SOON, moves=False) == "flat"
