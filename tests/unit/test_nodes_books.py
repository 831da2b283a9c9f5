"""The books of messages that pass through several nodes: what they object to, and what they let be."""

import math

from engine.model.event import Event
from engine.model.outcome import Outcome
from tests.nodes.books import Books, Takeover

ANN = "n1@d1.example"


def taken_over(took: float, *, is_judged: bool = True) -> Takeover:
    return Takeover(node="a", fault="killed", at=0.0, took=took, bound=6.0, claims=2, is_judged=is_judged)


def books(*arrivals: float) -> Books:
    """One message, answered with 250 by node a at 1.0, which it sent at these times."""
    found = Books()
    found.yes([ANN], 1.0, "a")
    for at in arrivals:
        found.came(ANN, at, "a")
    return found


def test_what_arrived_once_is_well() -> None:
    assert books(2.0).verdict([]).objections == []


def test_what_was_answered_and_never_arrived_is_lost() -> None:
    assert books().verdict([]).lost == (ANN,)


def test_what_is_still_in_the_queue_is_not_lost_but_told_all_the_same() -> None:
    found = books().verdict([ANN])
    assert (found.lost, found.stuck) == ((), (ANN,))
    assert found.objections == [f"1 still in the queue: {ANN}"]


def test_a_copy_is_explained_by_an_attempt_on_record_for_that_recipient_and_each_by_one_of_its_own() -> None:
    found = books(2.0, 3.0, 4.0)
    assert len(found.verdict([]).unexplained) == 1
    found.happened([Event(at=2.5, kind="interrupted", recipient=ANN)])
    found.happened([Event(at=2.5, kind="interrupted", recipient="n2@d1.example")])
    assert len(found.verdict([]).unexplained) == 1
    lost = Outcome(kind="transient", text="lost", may_duplicate=True)
    found.happened([Event(at=3.5, kind="deferred", recipient=ANN, outcome=lost)])
    assert found.verdict([]).objections == []


def test_copies_of_what_was_never_answered_are_looked_at_as_well() -> None:
    found = books(2.0)
    found.unknown.add("n2@d1.example")
    found.came("n2@d1.example", 2.0, "a")
    assert found.verdict([]).objections == []
    found.came("n2@d1.example", 3.0, "b")
    assert len(found.verdict([]).unexplained) == 1


def test_what_ended_otherwise_than_delivered_is_told() -> None:
    found = books(2.0)
    found.happened([Event(at=2.5, kind="returned", recipient=ANN)])
    assert found.verdict([]).damaged == (f"{ANN} (returned)",)


def test_a_takeover_may_take_so_long_and_no_longer() -> None:
    found = books(2.0)
    found.takeovers = [taken_over(5.9), taken_over(math.inf, is_judged=False)]
    assert found.verdict([]).objections == []
    found.takeovers = [taken_over(6.1), taken_over(math.inf)]
    assert len(found.verdict([]).objections) == 2


def test_a_node_that_others_have_taken_over_from_sends_nothing() -> None:
    found = books(2.0)
    found.silent("a", 3.0, 9.0)
    found.silent("b", 1.0, 9.0)
    assert found.verdict([]).objections == []
    found.silent("a", 1.5, 9.0)
    assert len(found.verdict([]).strays) == 1


def test_a_node_takes_mail_again_and_sends_it_after_what_befell_it() -> None:
    found = books(2.0)
    found.over("killed", "a", 0.5)
    assert found.verdict([]).objections == []
    found.over("frozen", "a", 1.5)
    assert len(found.verdict([]).objections) == 1


def test_books_of_nothing_prove_nothing() -> None:
    assert Books().verdict([]).objections == ["nothing was answered with 250"]
