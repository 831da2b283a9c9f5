"""Whose fault it is that no connection can be opened; how the relay pauses for its own; how many files it may open."""

import errno
import socket
import subprocess
import sys
from typing import get_args

import pytest

from engine.delivery.pause import FIRST, LONGEST, QUIET, SAID, SITES, Pause
from engine.settings import descriptors
from engine.settings.ourselves import Interfaces, address_in
from engine.settings.settings import Delivery, Intake, Settings, Smtp
from engine.smtpclient import blame
from engine.smtpclient.blame import Blame
from tests.clock import FakeClock
from tests.waiting import PATIENCE

TABLE: list[tuple[int, Blame, Blame, Blame]] = [
    # errno; with a route to the address; without, but to its family; with none to the family
    (errno.EMFILE, "machine", "machine", "machine"),
    (errno.ENFILE, "machine", "machine", "machine"),
    (errno.ENOBUFS, "machine", "machine", "machine"),
    (errno.ENOMEM, "machine", "machine", "machine"),
    (errno.EADDRNOTAVAIL, "address", "address", "family"),
    (errno.EPERM, "address", "address", "family"),
    (errno.EACCES, "address", "address", "family"),
    (errno.EAFNOSUPPORT, "address", "address", "family"),
    (errno.ENETUNREACH, "host", "address", "family"),
    (errno.EHOSTUNREACH, "host", "address", "family"),
    (errno.ENETDOWN, "host", "address", "family"),
    (errno.ECONNREFUSED, "host", "host", "host"),
    (errno.ECONNRESET, "host", "host", "host"),
    (errno.ETIMEDOUT, "host", "host", "host"),
    (errno.EINVAL, "host", "host", "host"),
    (0, "host", "host", "host"),
]


@pytest.mark.parametrize(
    ("code", "routed", "unrouted", "alone"), TABLE, ids=lambda value: errno.errorcode.get(value, value)
)
def test_what_is_wanting_here_is_no_hosts_fault(code: int, routed: Blame, unrouted: Blame, alone: Blame) -> None:
    assert blame.blame(code) == routed
    assert blame.blame(code, has_route=False) == unrouted
    assert blame.blame(code, has_route=False, has_family=False) == alone
    assert {routed, unrouted, alone} <= set(get_args(Blame))


def test_the_kernel_is_asked_for_its_routes_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blame.has_route("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        monkeypatch.setattr(blame, "_DISCARD", listening.getsockname()[1])
        assert blame.has_route("127.0.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"later", listening.getsockname())
        listening.settimeout(PATIENCE)
        assert listening.recv(10) == b"later"  # and nothing before
    refused = OSError(errno.ECONNREFUSED, "refused")
    assert blame.of_error(refused, "127.0.0.1") == "host"
    assert blame.of_error(OSError(errno.ENETUNREACH, "said by a router"), "127.0.0.1") == "host"
    assert blame.of_error(OSError(errno.EMFILE, "no more"), "2001:db8::1") == "machine"
    assert blame.shortage() == ""


def pause_of(clock: FakeClock, *families: str) -> Pause:
    return Pause(clock, has_family=lambda family: family in families)


async def test_a_fault_of_the_machine_pauses_for_longer_each_time_until_something_works(clock: FakeClock) -> None:
    pause = pause_of(clock, "IPv4", "IPv6")
    assert pause.limiting is None
    lasted: list[float] = []
    for _ in range(9):
        assert pause.met("machine", "too many open files", "mx.example.org")
        assert pause.met("machine", "no buffers", "mx.example.net")  # under way together: the first counts
        assert pause.limiting is not None
        assert pause.limiting.text == "too many open files"
        assert pause.limiting.until is not None
        lasted.append(pause.limiting.until - clock.now())
        await clock.advance(lasted[-1])
        assert pause.limiting is None
        assert "too many open files" in pause.trouble
    assert lasted == [FIRST, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]
    await clock.advance(LONGEST + 1)
    assert pause.trouble == ""  # nothing was tried since: who knows
    pause.works()
    assert (pause.trouble, pause.limiting) == ("", None)
    assert pause.met("machine", "again", "mx.example.org")
    assert pause.limiting is not None
    assert pause.limiting.until == clock.now() + FIRST


async def test_a_family_without_a_route_stops_nobody_elses_mail(clock: FakeClock) -> None:
    pause = pause_of(clock, "IPv4")
    assert not pause.met("family", "network is unreachable here, for [2001:db8::1]:25", "mx.example.org")
    assert (pause.trouble, pause.limiting) == ("", None)
    assert "2001:db8::1" in pause.notes[0]
    await clock.advance(SAID)
    assert pause.notes == ()
    off_the_net = pause_of(clock)
    assert off_the_net.met("family", "network is unreachable", "mx.example.org")


async def test_a_stranger_whose_addresses_cannot_be_dialled_does_not_stop_the_relay(clock: FakeClock) -> None:
    pause = pause_of(clock, "IPv4", "IPv6")
    pause.works()
    for number in range(100):
        assert not pause.met("address", "permission denied", f"mx{number}.evil.example")
    assert pause.limiting is None
    await clock.advance(QUIET + 1)
    for _ in range(100):
        assert not pause.met("address", "permission denied", "mx.evil.example")  # one site is one
    met = [pause.met("address", "permission denied", f"mx{number}.example") for number in range(SITES)]
    assert met[-1]
    assert pause.limiting is not None


@pytest.mark.parametrize("step", [-86_400, 86_400])
async def test_a_step_of_the_clock_makes_a_pause_neither_longer_nor_shorter(clock: FakeClock, step: float) -> None:
    pause = pause_of(clock, "IPv4", "IPv6")
    assert pause.met("machine", "too many open files", "mx.example.org")
    await clock.set_by(step)
    assert pause.limiting is not None
    assert pause.limiting.until == clock.now() + FIRST  # said by the clock that the machine has now
    assert "too many open files" in pause.trouble
    await clock.advance(FIRST)
    assert pause.limiting is None
    await clock.advance(LONGEST + 1)
    assert pause.trouble == ""


async def test_after_a_step_back_faults_of_addresses_still_count_and_what_was_said_is_forgotten(
    clock: FakeClock,
) -> None:
    pause = pause_of(clock, "IPv4", "IPv6")
    pause.works()
    assert not pause.met("family", "network is unreachable here", "mx.example.org")
    await clock.set_by(-86_400)
    await clock.advance(QUIET + 1)
    met = [pause.met("address", "permission denied", f"mx{number}.example") for number in range(SITES)]
    assert met[-1]
    await clock.advance(SAID)
    assert pause.notes == ()


def test_connections_go_out_from_an_address_of_this_machine_where_there_is_a_way() -> None:
    for family in ("IPv4", "IPv6"):
        found = blame.source(family)
        assert bool(found) == blame.has_family(family)
        assert not found or address_in(found) in Interfaces()()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_limit_of_open_files_is_raised_to_what_the_settings_need_as_far_as_it_may_be() -> None:
    delivery = Delivery(max_connections=50, max_lookups=40)
    settings = Settings(intake=Intake(smtp=Smtp(max_sessions=300)), delivery=delivery)
    assert descriptors.needed(settings) == 300 + 3 * 50 + 2 * 40 + descriptors.SPARE
    in_a_process_of_its_own = """
import resource
from engine.settings import descriptors
from engine.settings.ourselves import Interfaces, address_in
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 400))
assert descriptors.raise_to(200) == 200
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 400)
assert descriptors.raise_to(5000) == 400
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, 400)
assert descriptors.raise_to(10) == 400
"""
    subprocess.run([sys.executable, "-c", in_a_process_of_its_own], check=True, timeout=60)


def test_too_few_open_files_are_noted_with_what_to_do() -> None:
    assert descriptors.note(1024, 1024) == ""
    assert descriptors.note(120, 600) == (
        "only 120 open files are allowed, and these settings may need 600: raise the limit"
        " (LimitNOFILE= of the service, or ulimit -n)"
    )
