"""The suppression list over the control socket: what is asked is judged, bounded, and cleaned before it is kept."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.control.client import Client, Refused
from engine.model.suppression import Entry, Suppress, Suppressed
from engine.settings.settings import Suppression
from tests.unit.fake_relay import NOW, FakeEngine, short_folder


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


async def enter(client: Client, *entries: Entry) -> str:
    return (await client.suppress(Suppress(entries=list(entries), source="a list"))).text


async def test_an_address_is_entered_as_it_is_compared_and_with_who_asked(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        text = await enter(client, Entry(address=" <Bob@Example.ORG> ", note=" left\x1b[31m us "))
        assert text.startswith("bob@example.org is on the list")
        assert text.endswith("suppression.enabled is false, and nobody is refused")
        (row,) = (await client.suppressed()).rows
        assert (row.address, row.since, row.until, row.is_automatic) == ("bob@example.org", NOW, None, False)
        assert row.note.isprintable()
        assert "off the list" in (await client.unsuppress("BOB@example.org")).text
        with pytest.raises(Refused, match=r"bob@example.org is not on the list") as refused:
            await client.unsuppress("bob@example.org")
        assert refused.value.refusal.not_found


async def test_what_came_by_itself_comes_and_goes_by_itself_again(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        await enter(client, Entry(address="a@x.example", by="engine"), Entry(address="b@x.example", by="ann"))
        first, second = (await client.suppressed()).rows
        assert first == Suppressed(address="a@x.example", since=NOW, until=NOW + 30 * 86_400)
        assert (second.by, second.until) == ("ann", None)


@pytest.mark.parametrize(
    ("entry", "where", "what"),
    [
        (Entry(address="nobody"), "address", "no @ after the local part"),
        (Entry(address="b\x00b@x.example"), "address", "cannot be shown"),
        (Entry(address="postmaster@relay.example.net"), "address", "looks after this relay"),
        (Entry(address="bob@x.example", until=NOW - 1), "until", "its time is over"),
        (Entry(address="bob@x.example", until=1e18), "until", "or is none"),
        (Entry(address="bob@x.example", since=-1.0), "since", "no time in the past"),
        (Entry(address="bob@x.example", since=NOW + 90 * 86_400), "since", "no time in the past"),
    ],
)
async def test_what_cannot_be_entered_is_refused_and_nothing_with_it(
    engine: FakeEngine, entry: Entry, where: str, what: str
) -> None:
    async with engine.serving() as client:
        with pytest.raises(Refused, match=what) as refused:
            await enter(client, entry)
        assert refused.value.refusal.where == where
        with pytest.raises(Refused) as refused:
            await enter(client, Entry(address="good@x.example"), entry)
        assert refused.value.refusal.where == f"entries[1].{where}"
        assert engine.queue.suppression.calls == []


async def test_no_more_than_there_is_room_for_and_no_more_than_a_hundred_at_once(engine: FakeEngine) -> None:
    settings = replace(engine.relay.settings, suppression=Suppression(enabled=True, most=1))
    engine.relay = dataclasses.replace(engine.relay, settings=settings)
    async with engine.serving() as client:
        with pytest.raises(Refused, match="room for 1 addresses") as refused:
            await enter(client, Entry(address="a@x.example"), Entry(address="b@x.example"))
        assert "suppression.most" in refused.value.refusal.allowed
        with pytest.raises(Refused, match="length <= 100"):
            await enter(client, *(Entry(address=f"u{number}@x.example") for number in range(101)))
        with pytest.raises(Refused, match="length >= 1"):
            await enter(client)
        assert "1 new" not in await enter(client, Entry(address="A@x.example"), Entry(address="a@X.example"))
        assert (await client.suppressed()).total == 1


async def test_it_is_asked_for_in_parts_that_are_bounded(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        with pytest.raises(Refused):
            await client.suppressed(limit=1001)
        with pytest.raises(Refused):
            await client.suppressed(match="x" * 201)
