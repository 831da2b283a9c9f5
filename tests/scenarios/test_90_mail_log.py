"""The mail log of a relay at work: each thing once, as it was."""

import re
from pathlib import Path

from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Encrypted, Script
from engine.settings.settings import Log
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.smtp import smtp_client


async def test_each_arrival_and_each_attempt_has_its_lines(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Encrypted())])
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    refusing = Script({"RCPT": "550 5.1.1 no such user"})
    await internet.add("strict.example", mx=[(10, "mx.strict.example", refusing)])
    path = tmp_path / "mail.log"
    async with relaying(internet, clock=clock, log=Log(mail=str(path))) as relay:
        await relay.send("a@good.example", "b@good.example", "c@dead.example", "d@strict.example")
        await relay.settled()
        await relay.later(60)  # what failed is told to the sender
    text = path.read_text()
    assert len(re.findall(r"smarthost/smtpd\[\d+\]: 1: client=unknown\[127\.0\.0\.1\]", text)) == 1
    assert len(re.findall(r"smarthost/qmgr\[\d+\]: 1: from=<ann@example.com>, size=\d+, nrcpt=4 ", text)) == 1
    sent = re.findall(
        r"smarthost/smtp\[\d+\]: 1: to=<([ab])@good\.example>, relay=mx\.good\.example\[[0-9.]+\]:\d+, delay=[0-9.]+, "
        r"delays=0/[0-9.]+/[0-9.]+/[0-9.]+, dsn=2\.0\.0, status=sent \(250 2\.0\.0 taken as 1-1\), tls=TLSv1\.3",
        text,
    )
    assert sorted(sent) == ["a", "b"]
    assert re.search(r"1: to=<c@dead\.example>, relay=none, .* status=deferred \(.*connection refused", text)
    assert re.search(
        r"1: to=<d@strict\.example>, relay=mx\.strict.* dsn=5\.1\.1, status=bounced \(host .* said: 550", text
    )
    assert "bounce[" in text
    assert "sender non-delivery notification: 2" in text


async def test_each_refusal_has_its_line_however_many_there_are(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "mail.log"
    async with relaying(internet, clock=clock, log=Log(mail=str(path)), relay_networks=()) as relay:
        door = relay.engine.smtp.addresses[0]
        for _ in range(30):
            async with smtp_client(door.port, door.host) as smtp:
                await smtp.ehlo()
                await smtp.execute_command(b"MAIL FROM:<eve@x.example>")
                assert (await smtp.execute_command(b"RCPT TO:<bob@example.org>")).code == 550
        assert len(await relay.events("refused")) < 30
    lines = [line for line in path.read_text().splitlines() if "NOQUEUE: reject: RCPT from unknown[127.0.0.1]" in line]
    assert len(lines) == 30
    assert "550 5.7.1 " in lines[0]
    assert "Relay access denied; from=<eve@x.example>" in lines[0]
