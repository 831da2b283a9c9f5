"""What releases more than one message can be asked beforehand how many: over a running engine's socket."""

from collections.abc import Awaitable, Callable

import pytest

from engine.control import views
from engine.control.client import Client, Refused
from tests.scenarios.test_control_engine import states, suspended

Look = Callable[[Client], Awaitable[views.SelectionView]]


async def test_each_end_is_counted_before_it_is_asked_for() -> None:
    async with suspended() as (engine, client):
        await client.hold_rule(views.HoldRule(filter="domain=example.com", seconds=3600, reason="a test"))
        await engine.queue.note_destination("example.org", ["mx.example.org"])
        await client.mark_bad(views.MarkBad(host="mx.example.org", seconds=600))
        await client.override(views.Override(destination="example.org", to="spare.example", seconds=600, reason=""))
        before = await states(client)
        looks: list[tuple[Look, int]] = [
            (lambda one: one.preview_resume("*"), 3),
            (lambda one: one.preview_good("MX.example.org"), 3),
            (lambda one: one.preview_end("example.org"), 3),
            (lambda one: one.preview_release_rule(1), 3),
        ]
        for look, recipients in looks:
            seen = await look(client)
            assert (seen.messages, seen.recipients, len(seen.examples)) == (3, recipients, 3)
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
