"""The commands where several nodes share the queue."""

import json
from collections.abc import Iterator
from datetime import UTC

import msgspec
import pytest

from console.commands import listings
from console.format import Moment
from engine.control import errands, presentation
from engine.control.views import ExplainView
from engine.model.event import Event
from engine.model.message import Attempt
from engine.model.node import Said
from engine.model.probe import Probed, ProbedAddress
from engine.model.verbs import Result
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import EXPLANATION, NOW, node
from tests.unit.test_control_nodes import ROW


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    monkeypatch.setattr(listings, "here_and_now", lambda: Moment(NOW, UTC))
    with serving_line() as line:
        yield line


@pytest.fixture
def nodes(line: FakeLine) -> FakeLine:
    said = Said(state="relaying", connections=2, max_connections=20, relaying=12, rate_in=3.5, rate_out=4.0)
    line.engine.queue.nodes.name = "a"
    line.engine.queue.nodes.there = [
        node("a", is_this=True, said=said),
        node("b", drained_at=NOW - 60, drained_by="oncall", said=said),
        node("c", is_lost=True, beat=NOW - 600),
    ]
    return line


def answering(line: FakeLine, *views: object) -> None:
    """Node b gives these answers, one after the other, and the last one for good."""
    left = list(views)

    async def answer(_: str, __: bytes) -> bytes:
        view = left.pop(0) if len(left) > 1 else left[0]
        return msgspec.json.encode(errands.Answered(view=msgspec.Raw(presentation.encoded(view))))

    line.engine.queue.nodes.answers = answer


def test_nodes_are_listed_with_their_load_and_what_is_to_be_known(nodes: FakeLine) -> None:
    answering(nodes, ())
    result = nodes.run("nodes", env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NODE  STATE     CONNS  MAIL  IN/S  OUT/S  UP  HEARD  VERSION  WHAT IS TO BE KNOWN",
        "a *   relaying   2/20    12   3.5    4.0  1m     1s  0.1.0",
        "b     drained    2/20    12   3.5    4.0  1m     1s  0.1.0    by oncall since 07:59, 12 messages to…",
        "c     lost          -     -     -      -   -    10m  0.1.0    not heard of since 07:50: others send…",
    ]
    rows = [json.loads(row) for row in nodes.run("nodes", "--json").stdout.splitlines()]
    assert [(row["name"], row["is_lost"], row["said"]["connections"]) for row in rows] == [
        ("a", False, 2), ("b", False, 2), ("c", True, 0),
    ]  # fmt: skip


def test_where_there_are_none_that_is_said(line: FakeLine) -> None:
    result = line.run("nodes")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "no node: the queue is this engine's alone\n"
    result = line.run("drain", "b")
    assert result.exit_code == 1
    assert "there are no nodes" in result.stderr


def test_status_names_the_node_that_was_asked(nodes: FakeLine) -> None:
    said = nodes.run("status").stdout
    assert "  node         a, one of 3, 1 lost\n" in said
    assert "  note         node c is lost: others send what it had\n" in said


def test_relayers_of_all_nodes_are_one_list_with_a_column_for_the_node(nodes: FakeLine) -> None:
    answering(nodes, (ROW,))
    result = nodes.run("relayers")
    assert [row.split()[-1] for row in result.stdout.splitlines()] == ["NODE", "a", "a", "b"]
    assert [row.split()[-1] for row in nodes.run("relayers", "--node", "b").stdout.splitlines()] == ["NODE", "b"]


def test_a_node_that_does_not_answer_is_named_beside_the_list(nodes: FakeLine) -> None:
    result = nodes.run("relayers")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == "node b does not answer: its connections are not listed\n"


def test_a_node_is_drained_and_brought_back(nodes: FakeLine) -> None:
    result = nodes.run("drain", "a")
    assert result.exit_code == 0
    assert result.stdout.startswith("node a is drained: it finishes what it sends")
    assert nodes.run("undrain", "b").stdout == "node b takes and sends mail again\n"
    result = nodes.run("drain", "z")
    assert result.exit_code == 1
    assert "there is no node z" in result.stderr


def test_close_probe_and_explain_go_to_the_node_that_is_named(nodes: FakeLine) -> None:
    answering(nodes, Result(verb="close", text="relayer 5 to mx.example.org is closed"))
    assert nodes.run("close", "5", "--node", "b").stdout == "relayer 5 to mx.example.org is closed\n"
    one = ProbedAddress(address="192.0.2.9", port=25, phase="QUIT", seconds=0.1)
    answering(nodes, Probed(host="mx.example.org", port=25, at=NOW, addresses=(one,)))
    assert "192.0.2.9" in nodes.run("probe", "mx.example.org", "--node", "b").stdout
    answering(nodes, ExplainView(subject="7.1", now=NOW, explanations=(EXPLANATION,)))
    assert "as node b sees it" in nodes.run("explain", "7.1", "--node", "b").stdout
    assert [name for name, _ in nodes.engine.queue.nodes.asked] == ["b"] * 3


def test_attempts_and_events_say_at_which_node_they_were() -> None:
    moment = Moment(NOW, UTC)
    event = Event(at=NOW, kind="delivered", recipient="bob@example.org", node="b")
    assert listings.event_line(event, moment).endswith("bob@example.org  node b")
    interrupted = Attempt(entry=1, relayer=5, started=NOW, ended=NOW, interrupted=True, node="b")
    assert "interrupted: node b ended in the middle of it" in listings._attempt(7, interrupted, moment)
    running = Attempt(entry=1, relayer=5, started=NOW - 3, node="b")
    assert listings._attempt(7, running, moment).endswith("running for 3.0s  (node b)")
