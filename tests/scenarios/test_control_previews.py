"""What releases more than one message can be asked beforehand how many: over a running engine's socket."""

import pytest

from engine.control import views
from engine.control.client import Refused
from engine.model.verbs import DryAsk, EndOverride, HoldRule, MarkBad, MarkGood, Override, ReleaseRule, Resume
from tests.scenarios.test_control_engine import states, suspended


async def test_each_end_is_counted_before_it_is_asked_for() -> None:
    async with suspended() as (engine, client):
        await client.ask(HoldRule(filter="domain=example.com", seconds=3600, note="a test"))
        await engine.queue.standing.note_destination("example.org", ["mx.example.org"])
        await client.ask(MarkBad(host="mx.example.org", seconds=600))
        before = await states(client)
        for_the_host = await client.would(MarkGood(host="MX.example.org"))
        await client.ask(Override(destination="example.org", to="spare.example", seconds=600, note=""))
        nothing_more = await client.would(MarkGood(host="MX.example.org"))
        assert nothing_more.messages == 0, "its mail goes to another host now"
        for seen in (
            for_the_host,
            await client.would(Resume(destination="*")),
            await client.would(EndOverride(destination="example.org")),
            await client.would(ReleaseRule(rule=1)),
        ):
            assert (seen.messages, seen.recipients, len(seen.examples)) == (3, 3, 3)
        assert await states(client) == before
        assert (await client.ask(ReleaseRule(rule=1))).recipients == 3


@pytest.mark.parametrize(
    ("ask", "where", "what"),
    [
        (Resume(destination="example.org"), "destination", "example.org is not suspended"),
        (MarkGood(host="mx.example.org"), "host", "mx.example.org is not marked bad"),
        (EndOverride(destination="example.org"), "destination", "example.org is not overridden"),
        (ReleaseRule(rule=9), "rule", "there is no hold rule 9 in force"),
    ],
)
async def test_where_there_is_nothing_to_end_it_says_so_as_the_end_does(ask: DryAsk, where: str, what: str) -> None:
    async with suspended() as (_, client):
        with pytest.raises(Refused) as refused:
            await client.would(ask)
    assert refused.value.refusal == views.Refusal(what=what, where=where, not_found=True)
