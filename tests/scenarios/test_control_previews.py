"""What releases more than one message can be asked beforehand how many: over a running engine's socket."""

from collections.abc import Awaitable, Callable

import pytest

from engine.control import views
from engine.control.client import Client, Refused
from engine.model.message import Selection
from tests.scenarios.test_control_engine import states, suspended

Look = Callable[[Client], Awaitable[Selection]]


async def test_each_end_is_counted_before_it_is_asked_for() -> None:
    async with suspended() as (engine, client):
        await client.hold_rule(views.HoldRule(filter="domain=example.com", seconds=3600, reason="a test"))
        await engine.queue.standing.note_destination("example.org", ["mx.example.org"])
        await client.mark_bad(views.MarkBad(host="mx.example.org", seconds=600))
        before = await states(client)
        for_the_host = await client.preview_good("MX.example.org")
        await client.override(views.Override(destination="example.org", to="spare.example", seconds=600, reason=""))
        nothing_more = await client.preview_good("MX.example.org")
        assert nothing_more.messages == 0, "its mail goes to another host now"
        for seen in (
            for_the_host,
            await client.preview_resume("*"),
            await client.preview_end("example.org"),
            await client.preview_release_rule(1),
        ):
            assert (seen.messages, seen.recipients, len(seen.examples)) == (3, 3, 3)
        assert await states(client) == before
        assert (await client.release_rule(1)).recipients == 3


@pytest.mark.parametrize(
    ("look", "where", "what"),
    [
        (lambda one: one.preview_resume("example.org"), "destination", "example.org is not suspended"),
        (lambda one: one.preview_good("mx.example.org"), "host", "mx.example.org is not marked bad"),
        (lambda one: one.preview_end("example.org"), "destination", "example.org is not overridden"),
        (lambda one: one.preview_release_rule(9), "rule", "there is no hold rule 9 in force"),
    ],
)
async def test_where_there_is_nothing_to_end_it_says_so_as_the_end_does(look: Look, where: str, what: str) -> None:
    async with suspended() as (_, client):
        with pytest.raises(Refused) as refused:
            await look(client)
    assert refused.value.refusal == views.Refusal(what=what, where=where, not_found=True)
