"""The operator's verbs over the control socket: who, what, how long, and exactly what is answered."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control import views
from engine.control.client import Client, Refused
from engine.model.destination import RELAY, Suspension
from engine.model.message import Selection
from engine.model.order import Changed
from engine.model.verbs import Check, Drop, Hold, MarkBad, MarkGood, Postpone, Resume, Retry, Suspend, Undo, named
from tests.unit.fake_relay import NOW, FakeEngine, short_folder

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


async def test_a_preview_says_what_would_be_touched_and_touches_nothing(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        selection = await client.would(Drop(filter="from=ann@example.net"))
    assert (selection.messages, selection.recipients, selection.newest) == (2, 3, 8)
    assert [row.id for row in selection.examples] == ["7.1"]
    assert engine.queue.calls == [("select", "from=ann@example.net", None)]
    assert engine.smarthost.told == []


@pytest.mark.parametrize(
    ("verb", "told", "call", "text"),
    [
        (
            "retry",
            ["let go"],
            ("retry", "domain=example.org", ME, 8),
            "2 recipients of 1 message are due now; 1 recipient left as it was: held, being relayed, or due already",
        ),
        (
            "hold",
            [],
            ("hold", "domain=example.org", ME, "looking into it", 8),
            "2 recipients of 1 message are held until released; 1 recipient left as it was: held already",
        ),
        (
            "release",
            ["wake"],
            ("release", "domain=example.org", ME, 8),
            "2 recipients of 1 message are released, to be sent when due; 1 recipient left as it was: not held",
        ),
    ],
)
async def test_a_verb_acts_in_the_name_of_who_asks(
    engine: FakeEngine, verb: str, told: list[str], call: tuple[object, ...], text: str
) -> None:
    note = {"note": " looking\ninto it "} if verb == "hold" else {}
    async with engine.serving() as client:
        result = await client.ask(named(verb).ask(filter="domain=example.org", newest=8, **note))
    assert engine.queue.calls == [call]
    assert (result.verb, result.text) == (verb, text)
    assert (result.messages, result.recipients, result.skipped) == (1, 2, 1)
    assert (result.operation, result.undo_until) == (0, None)
    assert engine.smarthost.told == told


async def test_mail_is_postponed_for_as_long_as_is_asked_and_what_would_have_ended_before_is_told(
    engine: FakeEngine,
) -> None:
    engine.queue.changed = Changed(messages=1, recipients=2, skipped=1, outlasting=1)
    async with engine.serving() as client:
        result = await client.ask(Postpone(filter="domain=example.org", seconds=7200, newest=8))
    assert engine.queue.calls == [("postpone", "domain=example.org", ME, NOW + 7200, 8)]
    assert result.text == (
        "2 recipients of 1 message are postponed for 2h; 1 would have been given up before that, and is given "
        "up then, unless it can be sent; 1 recipient left as it was: held, being relayed, or due later already"
    )


async def test_what_had_its_time_while_it_was_postponed_is_told_of_when_it_is_retried(engine: FakeEngine) -> None:
    engine.queue.changed = Changed(messages=2, recipients=2, outlasting=1)
    async with engine.serving() as client:
        result = await client.ask(Retry(filter="domain=example.org"))
    assert result.text == (
        "2 recipients of 2 messages are due now; 1 would have been given up before, and is given up now, unless it "
        "can be sent"
    )


@pytest.mark.parametrize(
    ("ask", "until"),
    [
        (Postpone(filter="id=7", seconds=7200), NOW + 7200),
        (Retry(filter="id=7"), NOW),
        (Hold(filter="id=7"), None),
    ],
)
async def test_what_makes_mail_due_says_beforehand_how_much_would_be_given_up_sooner(
    engine: FakeEngine, ask: Postpone | Retry | Hold, until: float | None
) -> None:
    engine.queue.selected = Selection(messages=2, recipients=3, newest=8, outlasting=1)
    async with engine.serving() as client:
        assert (await client.would(ask)).outlasting == 1
    assert engine.queue.until == until


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("seconds", [59, 30 * 86_400 + 1])
async def test_nothing_is_postponed_for_less_than_a_minute_or_more_than_thirty_days(
    engine: FakeEngine, seconds: float, dry_run: bool
) -> None:
    ask = Postpone(filter="id=7", seconds=seconds)
    async with engine.serving() as client:
        with pytest.raises(Refused, match="out of range"):
            await (client.would(ask) if dry_run else client.ask(ask))
    assert engine.queue.calls == []


@pytest.mark.parametrize(
    ("verb", "did"), [("bounce", "returned to the sender in 10s"), ("drop", "dropped in 10s, telling nobody")]
)
async def test_giving_up_only_holds_for_the_time_in_which_it_can_be_undone(
    engine: FakeEngine, verb: str, did: str
) -> None:
    engine.queue.changed = Changed(messages=1, recipients=2, operation=41, due=NOW + 10)
    async with engine.serving() as client:
        result = await client.ask(named(verb).ask(filter="id=7", note="runaway"))
    assert engine.queue.calls == [(verb, "id=7", ME, "runaway", 10.0, None)]
    assert result.text == f"2 recipients of 1 message are to be {did}, unless undone (operation 41)"
    assert (result.operation, result.undo_until) == (41, NOW + 10)


async def test_giving_up_at_once_cannot_be_undone(engine: FakeEngine) -> None:
    engine.queue.changed = Changed(messages=1, recipients=1, operation=41)
    async with engine.serving() as client:
        result = await client.ask(Drop(filter="id=7", now=True))
    assert engine.queue.calls == [("drop", "id=7", ME, "", 0.0, None)]
    assert result.text == "1 recipient of 1 message is to be dropped now, telling nobody"
    assert (result.operation, result.undo_until) == (0, None)


async def test_where_all_that_match_are_left_as_they_were_it_says_so(engine: FakeEngine) -> None:
    engine.queue.changed = Changed(messages=0, recipients=0, skipped=3)
    async with engine.serving() as client:
        result = await client.ask(Hold(filter="id=7"))
    assert result.text == "nothing changed; 3 recipients left as they were: held already"


@pytest.mark.parametrize("verb", ["retry", "postpone", "hold", "release", "bounce", "drop"])
async def test_an_action_on_nothing_is_refused(engine: FakeEngine, verb: str) -> None:
    engine.queue.changed = Changed(messages=0, recipients=0)
    lasting = {"seconds": 60} if verb == "postpone" else {}
    async with engine.serving() as client:
        with pytest.raises(Refused) as refused:
            await client.ask(named(verb).ask(filter="to=nobody", **lasting))
    assert refused.value.refusal == views.Refusal(
        what="no message in the queue matches", where="to=nobody", not_found=True
    )


async def test_an_operation_is_undone_by_its_number(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(Undo(operation=41))
        assert engine.queue.calls == [("undo", 41, ME)]
        assert (
            result.text
            == "2 recipients of 1 message are back as before; 1 recipient left as it was: carried out already"
        )
        engine.queue.changed = Changed(messages=0, recipients=0)
        with pytest.raises(Refused) as refused:
            await client.ask(Undo(operation=41))
    assert refused.value.refusal.not_found
    assert engine.smarthost.told == ["wake", "wake"]  # the second one found nothing, and tells all the same


async def test_a_check_is_run_at_once_and_recorded(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(Check())
        assert result.text == "checked: 1 new connection, 3 open in all"
        engine.queue.suspended = [Suspension(destination=RELAY, since=NOW, until=NOW + 600, by="ann", note="")]
        assert "the relay is suspended for another 10m, by ann" in (await client.ask(Check())).text
    assert engine.smarthost.checks == 2
    assert engine.queue.calls[0] == ("record", "checked", ME)


async def test_a_draining_relay_is_not_checked(engine: FakeEngine) -> None:
    engine.smarthost.draining = True
    async with engine.serving() as client:
        with pytest.raises(Refused, match="draining"):
            await client.ask(Check())
    assert engine.smarthost.checks == 0


async def test_a_destination_is_suspended_for_a_while_and_resumed(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(Suspend(destination="Example.ORG", seconds=3600, note="they asked"))
        assert engine.queue.suspended == [
            Suspension(destination="example.org", since=NOW, until=NOW + 3600, by=ME, note="they asked")
        ]
        assert result.text == (
            "example.org is suspended for 1h: no new connection is opened; 1 open connection will end by itself"
        )
        assert (
            await client.ask(Resume(destination="example.org"))
        ).text == "example.org is resumed: connections are opened again"
        with pytest.raises(Refused, match=r"example\.org is not suspended") as refused:
            await client.ask(Resume(destination="example.org"))
    assert refused.value.refusal.not_found
    assert engine.smarthost.told == ["wake", "resumed example.org"]


async def test_a_star_suspends_the_relay(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(Suspend(destination="*", seconds=60, note=""))
        assert result.text == (
            "the relay is suspended for 1m: no new connection is opened; 2 open connections will end by themselves"
        )
        assert engine.queue.suspended[0].destination == RELAY
        assert (await client.ask(Resume(destination="*"))).text.startswith("the relay is resumed")


async def test_a_host_is_marked_bad_for_a_while(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(MarkBad(host="MX1.Example.org.", seconds=1800, note="slow"))
        await client.ask(MarkBad(host="mx2.example.org"))
    assert engine.mx.calls == [
        ("mark_bad", "mx1.example.org", 1800.0, "slow", ME),
        ("mark_bad", "mx2.example.org", None, "", ME),
    ]
    assert result.text == "mx1.example.org is marked bad for 30m: it is left out until then"
    assert engine.smarthost.told == ["abandon mx1.example.org", "abandon mx2.example.org"]


async def test_a_host_is_marked_good_and_its_mail_let_go(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        result = await client.ask(MarkGood(host="mx1.dead.example"))
        assert result.text == "mx1.dead.example is used again; 2,204 recipients that waited for it are due now"
        assert result.recipients == 2204
        with pytest.raises(Refused, match="not marked bad") as refused:
            await client.ask(MarkGood(host="mx9.example.org"))
    assert refused.value.refusal.not_found
    assert engine.mx.calls == [("mark_good", "mx1.dead.example", ME)]


@pytest.mark.parametrize(
    ("given", "marked"),
    [
        ("mx_1.example.org", "mx_1.example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[ipv6:2001:db8::1]"),
        ("mx.bücher.example", "mx.xn--bcher-kva.example"),
    ],
)
async def test_hosts_are_marked_by_the_names_they_are_known_by(engine: FakeEngine, given: str, marked: str) -> None:
    async with engine.serving() as client:
        await client.ask(MarkBad(host=given))
    assert engine.mx.calls[0][1] == marked


async def test_notes_are_cleaned_and_bounded(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        await client.ask(Hold(filter="id=7", note="\x1b[2J" + "x" * 500))
        note = engine.queue.calls[0][3]
        assert note.startswith("\\x1b[2Jxxx")
        assert len(note) == 200
        await _suspend(client, "y" * 201)
    assert len(engine.queue.suspended[0].note) == 200


async def _suspend(client: Client, note: str) -> None:
    await client.ask(Suspend(destination="example.org", seconds=60, note=note))
