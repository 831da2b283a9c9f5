"""Before the disk is full no more mail comes in, health says so, and once there is room again it does."""

from pathlib import Path

from engine.intake.floor import DiskFloor
from engine.sandbox.internet import Internet
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay
from tests.scenarios.submitting import talk
from tests.scenarios.test_intake_drop import in_time

MIB = 2**20


class Disk:
    def __init__(self, mebibytes: int) -> None:
        self.mebibytes = mebibytes

    def free(self, folder: Path) -> int:
        return self.mebibytes * MIB


def test_the_floor_opens_again_only_a_tenth_above_where_it_shut() -> None:
    disk = Disk(100)
    floor = DiskFloor(Path("/spool"), 100 * MIB)
    floor.free = disk.free
    assert floor.why_not() == ""
    disk.mebibytes = 99
    assert floor.why_not() == "intake stops: 99 MiB free in /spool, intake.min_free is 100 MiB"
    disk.mebibytes = 109
    assert floor.why_not()
    disk.mebibytes = 110
    assert floor.why_not() == ""
    assert floor.why_not(11 * MIB)  # a message that would go below it
    assert floor.why_not(9 * MIB) == ""


def test_room_that_the_queue_has_and_does_not_use_counts() -> None:
    spare = 0
    floor = DiskFloor(Path("/spool"), 100 * MIB, lambda: spare)
    floor.free = Disk(5).free
    assert floor.why_not()
    spare = 200 * MIB  # a storm is over, its mail is gone, and the file it was in is as large as ever
    assert floor.why_not() == ""


def test_a_floor_of_nothing_stops_nothing_and_a_disk_that_cannot_be_asked_stops_all(tmp_path: Path) -> None:
    assert DiskFloor(tmp_path / "missing", 0).why_not() == ""
    assert "No such file" in DiskFloor(tmp_path / "missing", 1).why_not()
    assert DiskFloor(tmp_path, 1).why_not() == ""


async def test_intake_stops_before_the_disk_is_full_and_comes_back(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    disk = Disk(5)
    relay.engine.floor.free = disk.free
    async with talk(relay.engine.smtp.addresses[0]) as client:
        await client.reply()
        await client.ehlo()
        assert (await client.mail()).startswith("452 4.3.1")
        health = await relay.client.health()
        assert health.state == "sick"
        assert health.trouble.startswith("intake stops: 5 MiB free in ")
        dropped = relay.spool / "drop" / "a.eml"
        dropped.write_bytes(b"From: ann@example.com\nTo: bob@example.net\n\nhi\n")
        await clock.advance(3600)
        await clock.advance(3600)
        assert dropped.exists()
        disk.mebibytes = 1000
        assert (await relay.client.health()).trouble == ""
        assert (await client.mail()).startswith("250")
        await in_time(clock, lambda: not dropped.exists(), by=31)


async def test_a_message_announced_as_too_big_for_the_room_left_is_put_off(internet: Internet, relay: Relay) -> None:
    relay.engine.floor.free = Disk(110).free
    async with talk(relay.engine.smtp.addresses[0]) as client:
        await client.reply()
        await client.ehlo()
        assert (await client.say(f"MAIL FROM:<a@example.com> SIZE={20 * MIB}")).startswith("452 4.3.1")
        assert (await client.say(f"MAIL FROM:<a@example.com> SIZE={5 * MIB}")).startswith("250")
