"""What goes over the line: what is sent adds up to the picture, and is little."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.screens import canned
from tests.screens.canned import ENTRIES, NOW, OVERVIEW, CannedClient, entry
from tests.screens.conftest import SIZES
from tests.screens.hostile import hostile_client
from tests.screens.wire import Drawn, WiredHand, picture, wired

IDLE_BYTES = 200.0  # a second
BUSY_BYTES = 8 * 1024.0
WAYS = {
    "overview": (),
    "queue": ("2",),
    "relayers": ("3",),
    "hosts": ("4",),
    "reasons": ("5",),
    "events": ("6",),
    "destination": ("down", "enter"),
    "message": ("2", "enter"),
    "host": ("4", "enter"),
    "relayer": ("3", "enter"),
    "overrides": ("7",),
}


def waiting() -> CannedClient:
    """An engine with nothing to do: much mail waits, all of it for destinations that are blocked for some minutes."""
    entries = tuple(
        entry(48_200 + index, state="waiting", due=NOW + 15 + 2 * index, recipient=f"bücher{index}@example.org")
        for index in range(200)
    )
    rows = tuple(
        replace(canned.DESTINATIONS[1], name=f"d{index}.example", next_due=NOW + 7 * index, connections=0,
                blocked_until=NOW + 7 * index)
        for index in range(40)
    )  # fmt: skip
    hosts = tuple(replace(canned.HOSTS[0], host=f"mx.d{index}.example", until=NOW + 9 * index, next_due=NOW + index)
                  for index in range(40))  # fmt: skip
    still = replace(canned.HEALTH, rate_in=0.0, rate_out=0.0, connections=2, relaying=0)
    hang = tuple(row for row in canned.RELAYERS if row.stalling)
    seen = replace(OVERVIEW, health=still, destinations=rows, hosts=hosts, relayers=hang)
    return CannedClient(seen, entries)


@pytest.mark.parametrize(
    ("way", "size"), [*((way, "120x40") for way in WAYS), ("overview", "80x24"), ("queue", "80x24")]
)
async def test_an_idle_screen_sends_two_hundred_bytes_a_second_at_the_most(way: str, size: str) -> None:
    async with wired(waiting(), SIZES[size]) as hand:
        await hand.press(*WAYS[way])
        sent = [await hand.second() for _ in range(30)]
        assert sum(sent) / len(sent) <= IDLE_BYTES, sent


async def test_what_stands_behind_a_wide_character_is_drawn_with_it() -> None:
    """A terminal that thinks it narrow would else have a row of the old and the new."""
    rows = (entry(1, subject="", recipient="界@example.org", due=NOW + 100), entry(2, due=NOW + 100))
    async with wired(CannedClient(entries=rows)) as hand:
        await hand.press("2", "end", "home")
        before = len(hand.driver.sent)
        await hand.after(41)  # the second row says 50s now, the first, pointed at, 0:59
        sent = hand.driver.sent[before:]
        assert "界@example.org" in sent
        assert "ann@example.org" not in sent


async def test_nothing_is_sent_when_nothing_has_changed() -> None:
    async with wired(waiting()) as hand:
        before = hand.driver.sent
        hand.app.tick()
        await hand.rest()
        assert hand.driver.sent == before


async def _full_load(hand: WiredHand, second: int) -> None:
    """Four hundred messages a second: all that can change does."""
    seen = hand.client.seen
    fresh = tuple(
        replace(event, seq=event.seq + 100 * second, at=NOW + second, message=event.message + 400 * second,
                recipient=f"u{(index * 7919 + second * 131) % 9999}@{('outlook', 'gmail', 'x')[index % 3]}.example")
        for index, event in enumerate(canned.EVENTS)
    )  # fmt: skip
    phases = ("MAIL", "RCPT", "DATA", "body", "reply", "TLS", "hello")
    relayers = tuple(
        replace(row, phase=phases[(second + index) % 7], done=(row.done + 21 * second) % 100,
                phase_since=NOW + second - index / 10)
        for index, row in enumerate(canned.RELAYERS)
    )  # fmt: skip
    rows = tuple(
        replace(row, waiting=row.waiting + 37 * second, due=row.due + 11 * second, rate_out=row.rate_out + second / 7)
        for row in canned.DESTINATIONS
    )
    health = replace(seen.health, waiting=12_480 + 37 * second, due=310 + second, rate_out=412.3 + second / 3)
    hand.client.seen = replace(seen, health=health, events=fresh, relayers=relayers, destinations=rows)
    hand.client.entries = ENTRIES[second % 20 :]


@pytest.mark.parametrize("way", ["overview", "queue", "relayers", "events", "destination"])
async def test_a_screen_at_full_load_sends_eight_kibibytes_a_second_at_the_most(way: str) -> None:
    async with wired() as hand:
        await hand.press(*WAYS[way])
        sent = []
        for second in range(1, 31):
            await _full_load(hand, second)
            sent.append(await hand.second())
        assert sum(sent) / len(sent) <= BUSY_BYTES, sent


@pytest.mark.parametrize(("client", "size"), [(CannedClient, "120x40"), (hostile_client, "80x24"), (waiting, "67x19")])
async def test_what_is_sent_adds_up_to_the_picture(client: Callable[[], CannedClient], size: str) -> None:
    width, height = (int(number) for number in size.split("x"))
    async with wired(client(), (width, height)) as hand:
        terminal = Drawn(width, height)
        seen = 0
        keys = ("2", "down", "space", "enter", "escape", "slash", "a", "escape", "B", "tab", "escape", "3", "enter",
                "down", "escape", "4", "enter", "5", "6", "end", "1", "tab", "enter", "question_mark", "escape", "p",
                "p", "7", "1", "ctrl+p", "escape")  # fmt: skip
        for turn, key in enumerate(keys):
            await hand.press(key)
            await _full_load(hand, turn + 1) if client is CannedClient else None
            await hand.after(1)
            terminal.take(hand.driver.sent[seen:])
            seen = len(hand.driver.sent)
            assert terminal.lines == picture(hand.app), key
