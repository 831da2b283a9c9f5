"""What is remembered of strangers is bounded, and what was written longest ago goes first."""

from engine.base.kept import Kept


def test_for_one_more_the_oldest_is_let_go() -> None:
    kept = Kept[str, int](3)
    for number, name in enumerate("abcd"):
        kept[name] = number
    assert list(kept.items()) == [("b", 1), ("c", 2), ("d", 3)]


def test_what_is_written_again_is_the_newest() -> None:
    kept = Kept[str, int](2)
    kept["a"] = kept["b"] = 1
    kept["a"] = 2
    kept["c"] = 3
    assert dict(kept) == {"a": 2, "c": 3}


def test_what_is_only_read_is_not() -> None:
    kept = Kept[str, int](2)
    kept["a"] = kept["b"] = 1
    assert kept.get("a") == kept.setdefault("a", 9) == 1
    kept["c"] = 3
    assert list(kept) == ["b", "c"]


def test_a_default_that_is_set_counts() -> None:
    kept = Kept[str, int](1)
    kept["a"] = 1
    assert kept.setdefault("b", 2) == 2
    assert list(kept) == ["b"]
