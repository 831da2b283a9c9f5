"""When the way out at the port for mail is taken for closed: by which silences, and until when."""

import asyncio
import socket

import pytest

from engine.delivery.way_out import DEAD_KEPT, ENOUGH, KEPT, LASTS, MARKS_KEPT, UNRELATED, WITHIN, Watched, WayOut
from engine.model.destination import Mark
from tests.clock import FakeClock

# A silence of a site, a host and an address; an answer of a site and an address, or of an address; seconds.
Step = tuple[str, str, str] | tuple[str, str] | str | float

FOUR = {"IPv4"}
SIX = {"IPv6"}
BOTH = {"IPv4", "IPv6"}


def silences(count: int = UNRELATED, first: int = 0, *, six: bool = False) -> list[Step]:
    """So many hosts that have nothing in common are silent."""
    return [
        (f"mx.s{number}.example", f"mx.s{number}.example", f"2001:db{number}::1" if six else f"45.{number}.0.1")
        for number in range(first, first + count)
    ]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def way_out(clock: FakeClock) -> WayOut:
    return WayOut(clock, 25, outside=lambda address: not address.startswith("10."))


async def go(way_out: WayOut, clock: FakeClock, steps: list[Step]) -> None:
    for step in steps:
        match step:
            case (site, host, address):
                way_out.silent(site, host, address, clock.monotonic())
            case (site, address):
                way_out.answered(address, site)
            case str():
                way_out.answered(step)
            case float():
                await clock.advance(step)


@pytest.mark.parametrize(
    ("steps", "closed"),
    [
        pytest.param([], [], id="nothing is known"),
        pytest.param(silences(), ["IPv4"], id="enough are silent"),
        pytest.param(silences(UNRELATED - 1), [], id="one too few"),
        pytest.param(silences(six=True), ["IPv6"], id="of IPv6 alone"),
        pytest.param([*silences(UNRELATED - 1), *silences(UNRELATED - 1, six=True)], [], id="too few of either"),
        pytest.param(silences(1) * 50, [], id="one host alone"),
        pytest.param(
            [(f"mx.s{number}.example", f"mx.s{number}.example", f"45.1.{number}.1") for number in range(50)],
            [],
            id="hosts of one network",
        ),
        pytest.param(
            [(f"mx.s{number}.example", f"mx.s{number}.example", f"2001:db8:{number}::1") for number in range(50)],
            [],
            id="hosts of one network of IPv6",
        ),
        pytest.param(
            [("one site", f"mx.s{number}.example", f"45.{number}.0.1") for number in range(50)], [], id="one site"
        ),
        pytest.param(
            [(f"site {number}", f"mx{number}.big.example", f"45.{number}.0.1") for number in range(50)],
            [],
            id="hosts of one owner",
        ),
        pytest.param(
            [(f"site {number}", f"45.{number}.0.1", f"45.{number}.0.1") for number in range(UNRELATED)],
            ["IPv4"],
            id="hosts that an operator names by their addresses",
        ),
        pytest.param([*silences(UNRELATED - 1), WITHIN + 1, *silences(1, 90)], [], id="not at one time"),
        pytest.param([*silences(UNRELATED - 1), WITHIN - 1, *silences(1, 90)], ["IPv4"], id="within the time"),
        pytest.param(["45.99.0.1", *silences()], [], id="one has answered just before"),
        pytest.param(["45.99.0.1", WITHIN + 1, *silences()], ["IPv4"], id="it was long ago that one answered"),
        pytest.param([*silences(UNRELATED - 1), "45.99.0.1", *silences(1, 90)], [], id="one answers between"),
        pytest.param(
            ["45.99.0.1", 1.0, *silences(), WITHIN, *silences()], ["IPv4"], id="they answered once, and do no more"
        ),
        pytest.param(
            [*silences(), "45.99.0.1", WITHIN + 1, *silences()], [], id="they were silent while another answered"
        ),
        pytest.param(
            ["45.99.0.1", *silences(), WITHIN + 1, *silences()], [], id="another answered while they were silent"
        ),
        pytest.param(
            [
                *silences(),
                *((f"mx.s{number}.example", f"45.{number}.0.1") for number in range(UNRELATED)),
                WITHIN + 1,
                *silences(),
            ],
            ["IPv4"],
            id="they have answered since",
        ),
        pytest.param(["2001:db8::1", *silences()], ["IPv4"], id="what answers is of the other family"),
        pytest.param([*silences(), "45.99.0.1"], [], id="it is over once one answers"),
        pytest.param([*silences(), *silences(9, 90)], ["IPv4"], id="it goes on while none answers"),
        pytest.param([*silences(), LASTS + 1], [], id="nobody has tried for long"),
        pytest.param([*silences(), LASTS - 1, *silences(1), LASTS - 1], ["IPv4"], id="it lasts while it is tried"),
    ],
)
async def test_which_silences_mean_that_the_way_is_closed(
    way_out: WayOut, clock: FakeClock, steps: list[Step], closed: list[str]
) -> None:
    await go(way_out, clock, steps)
    assert [family for family in ("IPv4", "IPv6") if way_out.is_closed({family})] == closed
    assert way_out.is_closed(BOTH) == (len(closed) == 2)
    assert not way_out.is_closed(())
    assert bool(way_out.notes) == bool(closed)


async def test_what_is_closed_is_told_with_what_to_do(way_out: WayOut, clock: FakeClock) -> None:
    await go(way_out, clock, silences())
    (note,) = way_out.notes
    assert note.startswith("outgoing port 25 seems to be blocked: 5 hosts that have nothing to do with one another")
    assert "[[route]]" in note
    await go(way_out, clock, silences(six=True))
    assert way_out.notes == (note,)  # both
    await go(way_out, clock, ["45.99.0.1"])
    (note,) = way_out.notes
    assert note.startswith("outgoing port 25 seems to be blocked over IPv6: ")
    assert "[[route]]" not in note


def test_only_the_port_for_mail_and_addresses_outside_say_anything(clock: FakeClock) -> None:
    way_out = WayOut(clock, 25)
    concerned = ["192.0.2.1", "10.0.0.1", "127.0.0.1", "::1", "fe80::1", "fd00::1", "45.1.0.1", "2600::1", "nobody"]
    assert [address for address in concerned if way_out.concerns(address, 25)] == ["45.1.0.1", "2600::1"]
    assert not way_out.concerns("45.1.0.1", 587)


def mark(host: str, until: float = 60.0) -> Mark:
    return Mark(host=host, since=0.0, until=until, by="engine", note="silent")


async def test_marks_made_for_silence_are_wrong_once_the_way_is_seen_to_be_closed(
    way_out: WayOut, clock: FakeClock
) -> None:
    four, six, both, refused = mark("four"), mark("six"), mark("both"), mark("refused")
    way_out.marked(four, None, FOUR)
    way_out.marked(six, None, SIX)
    way_out.marked(both, None, BOTH)
    way_out.marked(mark("refused", 90.0), refused, FOUR)  # which it was already, for another reason
    wrong = [way_out.wrong_marks]
    await go(way_out, clock, silences())
    wrong.append(way_out.wrong_marks)
    await go(way_out, clock, silences(six=True))
    wrong.append(way_out.wrong_marks)
    way_out.taken_back((four,))
    wrong.append(way_out.wrong_marks)
    assert wrong == [(), (four,), (four, six, both), (six, both)]


async def test_marks_that_were_made_while_hosts_answered_are_right(way_out: WayOut, clock: FakeClock) -> None:
    way_out.marked(mark("dead"), None, FOUR)
    longer = mark("dead", 120.0)
    way_out.marked(longer, mark("dead"), FOUR)
    await go(way_out, clock, ["45.99.0.1", WITHIN + 1, *silences()])
    assert way_out.wrong_marks == ()


async def test_a_mark_that_was_made_longer_is_taken_back_as_it_is_now(way_out: WayOut, clock: FakeClock) -> None:
    way_out.marked(mark("one"), None, FOUR)
    way_out.marked(mark("one", 120.0), mark("one"), FOUR)
    await go(way_out, clock, silences())
    assert way_out.wrong_marks == (mark("one", 120.0),)


async def test_what_is_remembered_is_bounded(way_out: WayOut, clock: FakeClock) -> None:
    for number in range(3 * KEPT):
        way_out.silent("one site", "mx.example.org", f"45.{number % 256}.{number // 256}.1", clock.monotonic())
        way_out.silent(f"site {number}", f"mx.s{number}.example", "45.1.0.1", clock.monotonic())
    assert max(len(family.silences) for family in way_out._families.values()) == KEPT
    way_out.answered("45.99.0.1")
    for number in range(2 * DEAD_KEPT):
        way_out.silent(f"site {number}", f"mx.s{number}.example", "45.1.0.1", clock.monotonic())
    assert max(len(family.dead) for family in way_out._families.values()) == DEAD_KEPT
    for number in range(MARKS_KEPT + 10):
        way_out.marked(mark(f"mx{number}"), None, FOUR)
    assert len(way_out._marks) == MARKS_KEPT


class Dialler:
    """Meets what it is told to."""

    def __init__(self, met: BaseException | None = None) -> None:
        self.met = met

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        if self.met is not None:
            raise self.met
        return socket.socket()


class _Told(WayOut):
    """Notes what it is told."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, 25)
        self.told: list[str] = []

    def silent(self, site: str, host: str, address: str, since: float) -> None:
        self.told.append(f"{site} {host} {address} silent")

    def answered(self, address: str, site: str = "") -> None:
        self.told.append(f"{site} {address} answers")


@pytest.mark.parametrize(
    ("met", "site", "address", "port", "told"),
    [
        (None, "site", "45.1.0.1", 25, ["site 45.1.0.1 answers"]),
        (None, "", "45.1.0.1", 25, [" 45.1.0.1 answers"]),
        (None, "site", "45.1.0.1", 587, []),
        (None, "site", "10.0.0.1", 25, []),
        (TimeoutError(), "site", "45.1.0.1", 25, ["site mx.example.org 45.1.0.1 silent"]),
        (TimeoutError(), "", "45.1.0.1", 25, []),
        (TimeoutError(), "site", "45.1.0.1", 587, []),
        (ConnectionRefusedError(), "site", "45.1.0.1", 25, []),
        (ConnectionResetError(), "site", "45.1.0.1", 25, []),
    ],
)
async def test_of_what_is_dialled_silence_and_answers_are_told(
    clock: FakeClock, met: BaseException | None, site: str, address: str, port: int, told: list[str]
) -> None:
    way_out = _Told(clock)
    watched = Watched(Dialler(met), way_out, clock, site=site, host="mx.example.org")
    if met is None:
        (await watched.dial(address, port, 30.0)).close()
    else:
        with pytest.raises(type(met)):
            await watched.dial(address, port, 30.0)
    assert way_out.told == told


@pytest.mark.parametrize(("seconds", "is_told"), [(ENOUGH - 1, False), (ENOUGH, True)])
async def test_silence_that_nobody_waited_out_counts_where_it_was_long(
    clock: FakeClock, seconds: float, is_told: bool
) -> None:
    class Silent(Dialler):
        async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
            await clock.advance(seconds)
            await asyncio.Event().wait()
            raise AssertionError

    way_out = _Told(clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Watched(Silent(), way_out, clock, site="site", host="mx.example.org").dial("45.1.0.1", 25, 30.0)
    assert bool(way_out.told) == is_told
