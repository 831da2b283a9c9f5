"""Readers of mail logs that operators have: pflogsumm counts what we counted, fail2ban sees who was refused."""

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Encrypted, Healthy, Script
from engine.settings.settings import Log
from tests.clock import FakeClock
from tests.interop.needs import needs
from tests.scenarios.relaying import Relay, relaying
from tests.smtp import smtp_client

FILTER = Path("/etc/fail2ban/filter.d/postfix.conf")


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with Internet(clock=FakeClock()) as internet:
        await internet.add("good.example", mx=[(10, "mx.good.example", Encrypted())])
        await internet.add("home.example", mx=[(10, "mx.home.example", Healthy())])
        await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
        await internet.add("strict.example", mx=[(10, "mx.strict.example", Script({"RCPT": "550 5.1.1 no such user"}))])
        yield internet


async def strangers(relay: Relay, times: int) -> None:
    """Somebody who may not relay tries to, so many times."""
    door = relay.engine.smtp.addresses[0]
    for _ in range(times):
        async with smtp_client(door.port, door.host) as smtp:
            await smtp.ehlo()
            await smtp.execute_command(b"MAIL FROM:<eve@x.example>")
            await smtp.execute_command(b"RCPT TO:<bob@good.example>")


def summed(path: Path) -> str:
    """What pflogsumm says of a log."""
    command = ["pflogsumm", "--syslog-name=smarthost", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs("pflogsumm")
async def test_pflogsumm_counts_what_the_relay_has_counted(internet: Internet, tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    clock = FakeClock()
    async with relaying(internet, clock=clock, log=Log(mail=str(path))) as relay:
        await relay.send("a@good.example", "b@good.example", sender="ann@home.example")
        await relay.send("c@dead.example", sender="ann@home.example", times=2)
        await relay.send("d@strict.example", sender="ann@home.example")
        await relay.settled()
        await relay.later(60)  # what failed is told to its sender
        counts = relay.engine.events.counts()
    told = summed(path)
    totals = {name: int(count) for count, name in re.findall(r"(?m)^ *(\d+) +(\w+)", told.partition("Per-")[0])}
    assert counts["accepted"] == 6  # recipients, of 5 messages: four that came in and one that is a bounce
    assert totals["received"] == 4  # a bounce is made here, and is received by nobody
    assert totals["delivered"] == counts["delivered"] == 3
    assert totals["deferred"] == counts["deferred"] > 0
    assert totals["bounced"] == counts["returned"] == 1
    assert re.search(r"(?m)^ *1 .*no such user", told)


@needs("pflogsumm")
async def test_pflogsumm_counts_refusals(internet: Internet, tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    async with relaying(internet, clock=FakeClock(), log=Log(mail=str(path)), relay_networks=()) as relay:
        await strangers(relay, 3)
    assert re.search(r"(?m)^ *3 +rejected", summed(path))


@needs("fail2ban-regex")
async def test_fail2ban_finds_who_was_refused(internet: Internet, tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    async with relaying(internet, clock=FakeClock(), log=Log(mail=str(path)), relay_networks=()) as relay:
        await strangers(relay, 3)
    found = subprocess.run(
        ["fail2ban-regex", str(path), f'{FILTER}[_daemon="smarthost/\\w+", mode=aggressive]'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"Lines: \d+ lines, 0 ignored, 3 matched", found.stdout), found.stdout
