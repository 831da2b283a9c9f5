"""Other nodes over the control socket: neither what they answer nor what they ask is taken for more than it is."""

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.control import errands, presentation, views
from engine.control.client import Refused
from engine.model.event import Event
from engine.model.probe import Probed
from engine.model.verbs import Close, Drain, Result, Undrain
from tests.unit.fake_relay import NOW, FakeEngine, node, short_folder
from tests.waiting import PATIENCE, until, until_told


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        engine = FakeEngine(Path(folder))
        engine.queue.nodes.name = "a"
        engine.queue.nodes.there = [node("a", is_this=True), node("b")]
        yield engine


def answering(engine: FakeEngine, view: Any) -> None:
    """Node b answers everything with this."""

    async def answer(_: str, __: bytes) -> bytes:
        return msgspec.json.encode(errands.Answered(view=msgspec.Raw(presentation.encoded(view))))

    engine.queue.nodes.answers = answer


def saying(engine: FakeEngine, raw: bytes) -> None:
    async def answer(_: str, __: bytes) -> bytes:
        return raw

    engine.queue.nodes.answers = answer


async def asked(engine: FakeEngine, question: Any) -> errands.Answer:
    """What this engine answers to another node."""
    async with engine.serving():
        assert engine.queue.nodes.on_request is not None
        raw = question if isinstance(question, bytes) else msgspec.json.encode(question)
        decoder: msgspec.json.Decoder[errands.Answer] = msgspec.json.Decoder(errands.Answer)
        return decoder.decode(await engine.queue.nodes.on_request(raw))


def order(word: str, ask: Any, by: str = "oncall") -> errands.Order:
    return errands.Order(word=word, ask=msgspec.Raw(msgspec.json.encode(ask)), by=by)


ROW = views.RelayerView(
    id=5, destination="example.org", host="mx.example.org", address="192.0.2.1", port=25, phase="DATA",
    phase_since=NOW, started=NOW, done=1, taken=2, node="forged",
)  # fmt: skip


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_relayers_of_another_node_bear_its_name_and_are_asked_for_once_a_second(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.colleagues.FRESH", 10 * PATIENCE)  # a second that lasts
    answering(engine, (ROW,))
    async with engine.serving() as client:
        rows = [await client.relayers() for _ in range(5)][-1]
        assert [(row.node, row.id) for row in rows] == [("a", 5), ("a", 6), ("b", 5)]
        await client.overview()
        assert len(engine.queue.nodes.asked) == 1
        monkeypatch.setattr("engine.control.colleagues.FRESH", 0.0)  # and is over
        await client.relayers()
        assert len(engine.queue.nodes.asked) == 2
    (row,) = engine.relay.colleagues.relayers_seen
    assert row.node == "b"


async def test_who_was_silent_is_asked_again_and_not_waited_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.colleagues.FRESH", 0.0)
    monkeypatch.setattr("engine.control.colleagues.RELAYERS_SECONDS", 10 * PATIENCE)
    async with engine.serving() as client:
        assert [state.is_silent for state in await client.nodes()] == [False, True]
        assert "node b does not answer: its connections are not listed" in (await client.health()).notes
        may_answer = asyncio.Event()

        async def late(_: str, __: bytes) -> bytes:
            await may_answer.wait()
            return msgspec.json.encode(errands.Answered(view=msgspec.Raw(presentation.encoded((ROW,)))))

        engine.queue.nodes.answers = late
        asked = len(engine.queue.nodes.asked)
        async with asyncio.timeout(PATIENCE):
            assert {row.node for row in await client.relayers()} == {"a"}
        await until(lambda: len(engine.queue.nodes.asked) == asked + 1)
        may_answer.set()
        await until_told(client.relayers, lambda rows: "b" in {row.node for row in rows})
        assert [state.is_silent for state in await client.nodes()] == [False, False]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff\xfe", b"[]", b"nonsense", b'{"answer": "view"}', b'{"answer": "order", "view": 1}', b"[" * 100_000,
        b'{"answer": "view", "view": {"verb": 3}}',
    ],
    ids=count(),
)  # fmt: skip
async def test_an_answer_that_cannot_be_read_is_said_to_be_so(engine: FakeEngine, raw: bytes) -> None:
    saying(engine, raw)
    async with engine.serving() as client:
        with pytest.raises(Refused, match="node b answers what cannot be read"):
            await client.ask(Close(relayer=5, node="b"))
        assert {row.node for row in await client.relayers()} == {"a"}


async def test_of_an_answer_no_more_is_taken_than_the_verb_has(engine: FakeEngine) -> None:
    answering(engine, Result(verb="drop", text="closed\x1b[2J", operation=7, undo_until=NOW, messages=9, follow=3))
    async with engine.serving() as client:
        assert await client.ask(Close(relayer=5, node="b")) == Result(verb="close", text="closed\\x1b[2J")


async def test_a_refusal_of_another_node_is_told_as_it_is(engine: FakeEngine) -> None:
    refusal = views.Refusal(what="there is no relayer 5\x1b", where="relayer", not_found=True)
    saying(engine, msgspec.json.encode(errands.Refused(status=200, refusal=refusal)))
    async with engine.serving() as client:
        with pytest.raises(Refused, match="there is no relayer 5") as refused:
            await client.ask(Close(relayer=5, node="b"))
    assert refused.value.refusal.not_found
    assert "\x1b" not in refused.value.refusal.what


async def test_the_operators_name_goes_with_what_is_asked(engine: FakeEngine) -> None:
    answering(engine, Probed(host="mx.example.org", port=25, at=NOW))
    async with engine.serving() as client:
        await client.probe("mx.example.org", "b")
    ((name, raw),) = engine.queue.nodes.asked
    sent = msgspec.json.decode(raw)
    assert (name, sent["question"], sent["word"]) == ("b", "order", "probe")
    assert sent["by"] not in ("", "engine")


@pytest.mark.parametrize("name", ["b c", "x" * 256, "b;drop", "\u00e9"])
async def test_what_is_no_name_of_a_node_is_refused(engine: FakeEngine, name: str) -> None:
    async with engine.serving() as client:
        for asking in (client.ask(Close(relayer=5, node=name)), client.explain("example.org", name)):
            with pytest.raises(Refused, match="is no name of a node"):
                await asking
    assert engine.queue.nodes.asked == []


# -- answering --------------------------------------------------------------------------------------------------------


async def test_another_node_is_answered_what_is_ours_alone(engine: FakeEngine) -> None:
    answer = await asked(engine, errands.Relayers(ended=1))
    assert isinstance(answer, errands.Answered)
    rows = msgspec.json.decode(answer.view, type=tuple[views.RelayerView, ...])
    assert [row.id for row in rows] == [5, 6, 4]
    assert engine.queue.nodes.asked == []  # it is not asked back
    transcript = await asked(engine, errands.Transcript(relayer=5))
    assert isinstance(transcript, errands.Answered)
    assert b"\\u001b" not in bytes(transcript.view)
    explained = await asked(engine, errands.Explain(subject="example.org"))
    assert isinstance(explained, errands.Answered)


async def test_another_node_has_a_connection_closed_by_who_asked_there(engine: FakeEngine) -> None:
    answer = await asked(engine, order("close", Close(relayer=5, node="a")))
    assert isinstance(answer, errands.Answered)
    assert ("record", "closed", "oncall") in engine.queue.calls


@pytest.mark.parametrize("by", ["engine", "", "\x1b[31m" + "x" * 200])
async def test_nobody_acts_in_the_name_of_the_engine(engine: FakeEngine, by: str) -> None:
    await asked(engine, order("close", Close(relayer=5), by))
    ((_, _, name),) = [call for call in engine.queue.calls if call[0] == "record"]
    assert name not in ("engine", "")
    assert len(name) <= 80
    assert "\x1b" not in name


@pytest.mark.parametrize(
    "question",
    [
        order("drop", {"filter": "", "now": True}),
        order("drain", Drain(node="a")),
        order("do", {}),
        order("__init__", {}),
        order("close", {"relayer": "5"}),
        order("close", {"relayer": 5, "dry_run": True}),
        order("close", {}),
        b'{"question": "order", "word": "close"}',
        b'{"question": "relayers", "ended": 1, "more": 2}',
        b'{"question": "queue"}',
        b"\xff",
        b"[" * 60_000,
        b"",
    ],
    ids=count(),
)
async def test_nothing_is_done_for_another_node_but_what_is_of_one_node_alone(
    engine: FakeEngine, question: Any
) -> None:
    answer = await asked(engine, question)
    assert isinstance(answer, errands.Refused)
    assert 400 <= answer.status < 500
    assert engine.queue.calls == []
    assert engine.queue.nodes.calls == []


# -- nodes ------------------------------------------------------------------------------------------------------------


async def test_health_names_the_node_where_there_are_several_and_what_should_be_known_of_them(
    engine: FakeEngine,
) -> None:
    engine.queue.nodes.there.append(node("c", is_lost=True))
    async with engine.serving() as client:
        health = await client.health()
    assert (health.node, health.nodes, health.nodes_lost) == ("a", 3, 1)
    assert "node c is lost: others send what it had" in health.notes


async def test_a_node_that_is_alone_is_not_named(engine: FakeEngine) -> None:
    engine.queue.nodes.there = [node("a", is_this=True)]
    engine.queue.happened = [
        Event(seq=1, at=NOW, kind="accepted", message=7, node="a"),
        Event(seq=2, at=NOW, kind="accepted", message=7, node="gone"),
    ]
    async with engine.serving() as client:
        assert (await client.health()).node == ""
        assert {row.node for row in await client.relayers()} == {""}
        assert [event.node for event in await client.events()] == ["", "gone"]
        engine.queue.nodes.there.append(node("b"))
        engine.relay.colleagues.forget()
        assert [event.node for event in await client.events()] == ["a", "gone"]


async def test_a_node_is_drained_in_the_name_of_who_asks_and_who_sends_then_is_told(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        told = await client.ask(Drain(node="b"))
        assert told.text.endswith("takes and sends nothing more; a sends what waits")
        told = await client.ask(Drain(node="a"))
        assert told.text.endswith("no other node is there to send what waits")
        assert (await client.nodes())[1].is_drained
        assert (await client.ask(Undrain(node="b"))).text == "node b takes and sends mail again"
        with pytest.raises(Refused, match="node b is not drained"):
            await client.ask(Undrain(node="b"))
        with pytest.raises(Refused, match="there is no node z"):
            await client.ask(Drain(node="z"))
    assert [(call, name) for call, name, _ in engine.queue.nodes.calls] == [
        ("drain", "b"), ("drain", "a"), ("undrain", "b"), ("undrain", "b"),
    ]  # fmt: skip
