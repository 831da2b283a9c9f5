"""The screens of a running engine in a sandbox internet: what the operator sees is what happened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC

import pytest
from syrupy.assertion import SnapshotAssertion

import engine.control.peer
from console.app import Console
from engine.control.client import Client
from engine.model.verbs import Hold, MarkBad
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Refusing, Script
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.screens.conftest import SIZES
from tests.screens.svg import export
from tests.waiting import until

# The picture's name says what it shows, not which test drew it.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*Can not relate snapshot:UserWarning")

SCENES: dict[str, tuple[str, ...]] = {
    "overview": (),
    "queue": ("2",),
    "destination": ("enter",),
    "message": ("enter", "enter"),
    "hosts": ("4",),
    "events": ("6",),
}
PICTURES = {f"running-{name}-{size}" for name in SCENES for size in SIZES}


@asynccontextmanager
async def afternoon() -> AsyncIterator[Relay]:
    """A relay with some history: one domain well, one full, one that refuses, one host left out by the operator."""
    clock = FakeClock()
    async with Internet(clock=clock) as internet, relaying(internet, clock=clock) as relay:
        await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
        await internet.add("full.example", mx=[(10, "mx.full.example", Script({"RCPT": "452 4.2.2 over quota"}))])
        await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
        await internet.add("two.example", mx=[(10, "mx1.two.example", Healthy()), (20, "mx2.two.example", Healthy())])
        await relay.client.ask(MarkBad(host="mx1.two.example", seconds=1200, note="their maintenance"))
        for recipient in ("bob@example.com", "ann@full.example", "eve@full.example", "x@fort.example", "y@two.example"):
            await relay.send(recipient)
            await relay.settled()
            await clock.advance(7)
        await relay.client.ask(Hold(filter="to=eve@full.example", note="asked to wait"))
        relay.engine.smarthost.wake()
        await until(lambda: relay.engine.smarthost.next_check == clock.now() + 30)
        yield relay


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCENES)
async def test_a_screen_of_the_running_engine(
    screenshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch, name: str, size: str
) -> None:
    monkeypatch.setattr(engine.control.peer, "_name", lambda uid: "oncall")  # whoever runs the tests
    async with afternoon() as relay:
        client = Client(relay.spool / "control.sock")
        app = Console(client, clock=relay.clock.now, tz=UTC, poll_seconds=None)
        async with app.run_test(size=SIZES[size]) as pilot:
            await app.poll()
            await pilot.pause()
            for key in SCENES[name]:
                await pilot.press(key)
                await pilot.pause()
                await app.poll()
                await pilot.pause()
            assert export(app) == screenshot(name=f"running-{name}-{size}")
