"""38. Whoever guesses passwords is slowed and refused; the owner of the login is not kept out by it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.intake.smtp.guesses import ANYWHERE, LONGEST_DELAY, NETWORK, WELCOME, Guesses
from engine.intake.smtp.limits import REMEMBERED, network_key
from engine.intake.smtp.listener import SmtpIntake
from engine.queue.sqlite import arrivals
from engine.queue.sqlite.store import SqliteQueue
from engine.settings.settings import Intake, Limits, Settings, Smtp
from tests.clock import FakeClock
from tests.scenarios.submitting import ANYWHERE as ANY_PORT
from tests.scenarios.submitting import Keys, made_keys, secured, submission
from tests.unit.fake_arrivals import FakeArrivals
from tests.unit.sqlite.support import opened
from tests.unit.sqlite.test_faults import BACK_TO_3

ATTACKER = "127.0.0.66"


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


class Waited(FakeClock):
    """A clock on which every wait is over at once; it says for how many seconds the last one was."""

    last = 0.0

    async def wait(self, event: asyncio.Event, until: float | None) -> bool:
        assert until is not None
        self.last = until - self._now
        self._now = until
        return False


LIMITS = Limits(exempt_networks=(), guess_window=864_000.0)  # so long that what is waited for drains nothing


async def log_in(server: SmtpIntake, keys: Keys, source: str, password: str = "other") -> str:
    async with secured(server.submission_addresses[0], keys, source=source) as client:
        return await client.log_in("bob", password)


@pytest.mark.parametrize("owner", ["127.0.9.9", "127.0.0.67"])
async def test_ten_wrong_guesses_from_anywhere_keep_the_right_password_out_nowhere_else(keys: Keys, owner: str) -> None:
    clock = Waited()
    async with submission(keys, FakeArrivals(), clock=clock, limits=LIMITS) as server:
        for number in range(10):
            assert (await log_in(server, keys, ATTACKER, f"guess{number}")).startswith("535")
        assert clock.last == LONGEST_DELAY
        assert (await log_in(server, keys, owner)).startswith("235")
        assert clock.last <= LONGEST_DELAY
        # and the guesser is refused, whatever it says
        assert (await log_in(server, keys, ATTACKER)).startswith("421 4.7.0")
        assert any("127.0.0.0/24" in note for note in server.notes)


async def test_whence_a_login_came_in_rightly_is_known_after_a_restart(keys: Keys, tmp_path: Path) -> None:
    clock = Waited()
    settings = Settings(
        hostname="relay.example",
        intake=Intake(smtp=Smtp(listen=ANY_PORT), submission=keys.submission(), limits=LIMITS),
    )
    for start in range(2):
        queue = SqliteQueue(tmp_path, clock)
        await queue.open()
        server = SmtpIntake(queue.arrivals, settings, clock)
        await server.start()
        if start:
            for number in range(12):
                await log_in(server, keys, "127.0.0.200", f"guess{number}")
        clock.last = 0.0
        assert (await log_in(server, keys, "127.0.0.77")).startswith("235")
        assert clock.last == 0.0
        await server.stop(1)
        assert [(known.login, known.address) for known in await queue.arrivals.known_logins()] == [
            ("bob", "127.0.0.77")
        ]
        await queue.close()


def guesses(**changed: object) -> tuple[Guesses, FakeClock]:
    clock = FakeClock()
    return Guesses(Limits(**{"guesses_per_address": 1000, "guesses_per_login": 4} | changed), clock), clock  # type: ignore[arg-type]


def test_a_guesser_is_refused_at_one_login_and_others_of_its_network_are_heard_slowly() -> None:
    counted, clock = guesses()
    delays = []
    while not counted.refused("192.0.2.1", "bob"):
        delays.append(counted.begin("192.0.2.1", "bob"))
    assert delays == [0, 0, 0, 1]
    assert counted.refused("192.0.2.1", "bob") == "login"
    assert not counted.refused("192.0.2.1", "ann")
    assert not counted.refused("192.0.2.2", "bob")
    assert counted.begin("192.0.2.2", "bob") == 2
    assert counted.refused("192.0.2.2", "bob") == "login"
    clock._now += 900
    assert not counted.refused("192.0.2.1", "bob")


def test_a_network_that_guesses_from_ever_new_addresses_is_refused_in_the_end() -> None:
    counted, _ = guesses()
    host = 0
    while not counted.refused(f"192.0.2.{host}", "bob"):
        counted.begin(f"192.0.2.{host}", "bob")
        host += 1
    assert host == NETWORK * 4
    assert not counted.refused("198.51.100.1", "bob")


def test_a_login_guessed_at_from_everywhere_is_slowed_and_never_locked() -> None:
    counted, clock = guesses()
    for number in range(2000):
        assert not counted.refused(f"10.{number // 250}.{number % 250}.1", "bob")
        assert counted.begin(f"10.{number // 250}.{number % 250}.1", "bob") <= LONGEST_DELAY
    assert counted.begin("203.0.113.1", "bob") == LONGEST_DELAY
    assert counted.begin("203.0.113.1", "ann") == 0
    assert counted.notes == ("the login bob is slowed from new addresses: too many wrong passwords for it",)
    clock._now += 900 * (ANYWHERE - 1) / ANYWHERE
    assert counted.begin("203.0.113.2", "bob") < LONGEST_DELAY


def test_who_has_logged_in_from_an_address_is_not_slowed_there_for_ninety_days() -> None:
    counted, clock = guesses()
    counted.begin("203.0.113.1", "bob")
    assert counted.right("203.0.113.1", "bob")
    assert not counted.right("203.0.113.1", "bob")  # it was noted a moment ago
    for number in range(100):
        counted.begin(f"10.0.{number}.1", "bob")
    assert counted.begin("203.0.113.1", "bob") == 0
    counted.forgive("203.0.113.1", "bob")
    clock._now += 86_400
    assert counted.right("203.0.113.1", "bob")  # but not today
    clock._now += WELCOME
    for number in range(100):
        counted.begin(f"10.0.{number}.1", "bob")
    assert counted.begin("203.0.113.1", "bob") == LONGEST_DELAY


def test_what_was_right_or_never_judged_leaves_no_trace() -> None:
    counted, _ = guesses()
    for _ in range(100):
        assert counted.begin("192.0.2.1", "bob") == 0
        counted.forgive("192.0.2.1", "bob")
    assert not counted.refused("192.0.2.1", "bob")


def test_addresses_that_log_in_cannot_make_memory_grow() -> None:
    counted, clock = guesses()
    for number in range(REMEMBERED + 500):
        counted.welcome(f"2001:db8:{number:x}::1", "bob", clock.now())
    assert len(counted._welcome) == REMEMBERED


def test_a_network_is_a_24_or_a_64() -> None:
    assert network_key("192.0.2.77") == network_key("::ffff:192.0.2.1") == "192.0.2.0/24"
    assert network_key("2001:db8::1") == "2001:db8::/64"


async def test_of_very_many_logins_those_not_seen_for_longest_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LOGINS_KEPT", 3)
    async with opened(tmp_path) as spool:
        for host in (1, 2, 3, 1, 4):
            await spool.queue.arrivals.remember_login("bob\udce9", f"192.0.2.{host}")
            await spool.clock.advance(1)
        assert [known.address for known in await spool.queue.arrivals.known_logins()] == [
            "192.0.2.3",
            "192.0.2.1",
            "192.0.2.4",
        ]


async def test_a_queue_of_the_third_version_is_brought_to_this_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        for statement in BACK_TO_3:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert len(await spool.entries()) == 1
        await spool.queue.arrivals.remember_login("bob", "192.0.2.1")
        assert len(await spool.queue.arrivals.known_logins()) == 1
