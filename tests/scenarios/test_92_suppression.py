"""An address that has failed for good is refused at once with what was said then, for a time, however mail comes."""

import asyncio
import email
import email.policy
import json
from pathlib import Path

import aiosmtplib
import pytest
from msgspec.structs import replace

from engine.model.suppression import Suppressed
from engine.model.verbs import Override
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Script
from engine.settings.settings import Rewrite, Route, Suppression
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.serving import serving
from tests.smtp import smtp_client

DAY = 86_400.0
ON = Suppression(enabled=True)
GONE = Script({"RCPT": "550 5.1.1 No such user here"})


@pytest.fixture
async def gone(internet: Internet) -> Exchange:
    """An exchange that knows nobody; and senders have a home."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    (exchange,) = await internet.add("gone.example", mx=[(10, "mx.gone.example", GONE)])
    return exchange


async def refused(relay: Relay, recipient: str, sender: str = "ann@example.com") -> str:
    """What RCPT is answered with; "" where it is taken."""
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        await smtp.ehlo()
        await smtp.mail(sender)
        try:
            await smtp.rcpt(recipient)
        except aiosmtplib.SMTPRecipientRefused as error:
            return f"{error.code} {error.message}"
        finally:
            await smtp.rset()
    return ""


async def listed(relay: Relay) -> list[str]:
    return [row.address for row in (await relay.engine.queue.suppression.window("", "", 100)).rows]


async def test_the_next_message_is_refused_at_once_with_the_old_reply_and_after_its_time_it_is_tried_again(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    async with relaying(internet, clock=clock, suppression=ON) as relay:
        await relay.send("Bob@gone.example")
        await relay.settled()
        (event,) = await relay.events("suppressed")
        assert (event.recipient, event.by) == ("bob@gone.example", "engine")
        said = await refused(relay, "bob@Gone.Example")
        assert said.startswith("550 5.1.1 Suppressed: it failed on ")
        assert said.endswith(" with: 550 5.1.1 No such user here")
        await relay.engine.smtp._reception.refusals.finish(5)
        (told,) = await relay.events("refused")
        assert (told.recipient, told.sender) == ("bob@gone.example", "ann@example.com")
        assert told.text.startswith("smtp 127.0.0.1: suppressed recipient: Suppressed: it failed on ")
        assert await refused(relay, "eve@gone.example") == ""
        assert await relay.entries() == ()
        await relay.later(30 * DAY - 60)
        assert await refused(relay, "bob@gone.example")
        await relay.later(120)
        await gone.become(Healthy())
        await relay.send("bob@gone.example")
        await relay.settled()
        (delivery,) = gone.delivered
        assert delivery.recipients == ("bob@gone.example",)
        assert await listed(relay) == []


async def test_by_default_nobody_is_refused_and_nobody_comes_on_it(
    internet: Internet, relay: Relay, gone: Exchange
) -> None:
    await relay.send("bob@gone.example")
    await relay.settled()
    assert await listed(relay) == []
    entered = Suppressed(address="bob@gone.example", since=relay.clock.now(), by="ann")
    await relay.engine.queue.suppression.enter([entered], "ann", "", 100)
    assert await refused(relay, "bob@gone.example") == ""


@pytest.mark.parametrize(
    "said", ["550 5.7.1 Policy", "550 no such user", "450 4.1.1 later", "550 5.2.2 full", "552 5.1.1 too many"]
)
async def test_other_refusals_bring_nobody_on_it(
    internet: Internet, clock: FakeClock, gone: Exchange, said: str
) -> None:
    await gone.become(Script({"RCPT": said}))
    async with relaying(internet, clock=clock, suppression=ON) as relay:
        await relay.send("bob@gone.example")
        await relay.settled()
        assert await listed(relay) == []
        assert await refused(relay, "bob@gone.example") == ""


async def test_what_is_said_of_the_message_or_of_the_sender_brings_nobody_on_it(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    for command in ("MAIL", "DATA"):
        await gone.become(Script({command: "550 5.1.1 no such user"}))
        async with relaying(internet, clock=clock, suppression=ON) as relay:
            await relay.send("bob@gone.example")
            await relay.settled()
            assert [event.kind for event in await relay.events("returned")] == ["returned"], command
            assert await listed(relay) == []


async def test_what_hosts_of_routes_and_overrides_say_does_not_count(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    route = Route(domain="good.example", host="mx.gone.example", port=internet.port)
    async with relaying(internet, clock=clock, suppression=ON, route=(route,)) as relay:
        await relay.send("bob@good.example")
        await relay.client.ask(Override(destination="other.example", to="mx.gone.example", seconds=3600))
        await relay.send("bob@other.example")
        await relay.settled()
        assert len(await relay.events("returned")) == 2
        assert await listed(relay) == []


async def test_notifications_are_never_refused_and_our_own_postmaster_neither(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    async with relaying(internet, clock=clock, suppression=ON, hostname="gone.example") as relay:
        await relay.send("bob@gone.example", "postmaster@gone.example")
        await relay.send("nobody@gone.example", sender="")
        await relay.settled()
        assert await listed(relay) == ["bob@gone.example"]
        assert await refused(relay, "bob@gone.example", sender="") == ""
        assert await refused(relay, "postmaster") == ""


async def test_mail_that_was_queued_before_is_tried_and_what_is_delivered_takes_it_off(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    async with relaying(internet, clock=clock, suppression=ON) as relay:
        await gone.become(Script({"RCPT": "450 4.2.1 later"}))
        await relay.send("bob@gone.example")
        await relay.settled()
        await gone.become(GONE)
        await relay.send("bob@gone.example")
        await relay.settled()
        assert await listed(relay) == ["bob@gone.example"]
        await gone.become(Healthy())
        await relay.later(400)
        assert len(gone.delivered) == 1
        assert await listed(relay) == []
        assert [event.text for event in await relay.events("unsuppressed")] == ["mail to it was delivered"]


async def test_of_a_dropped_file_the_sender_is_told_at_once_and_the_others_have_it(
    internet: Internet, clock: FakeClock, gone: Exchange
) -> None:
    async with relaying(internet, clock=clock, suppression=ON) as relay:
        await relay.send("bob@gone.example")
        await relay.settled()
        await relay.later(60)
        before, asked = internet.messages, gone.sessions
        beside = relay.spool / "letter"
        beside.write_bytes(
            b"From: ann@example.com\r\nTo: bob@gone.example, joe@good.example\r\nSubject: hi\r\n\r\nhello\r\n"
        )
        beside.rename(relay.spool / "drop" / "letter.eml")
        await internet.wait_for(before + 1)
        await relay.later(60)
        await internet.wait_for(before + 2)
        assert gone.sessions == asked, "nobody was asked again"
        good, bounce = sorted(internet.delivered[-2:], key=lambda one: one.sender, reverse=True)
        assert good.recipients == ("joe@good.example",)
        assert (bounce.sender, bounce.recipients) == ("", ("ann@example.com",))
        report = email.message_from_bytes(bounce.content, policy=email.policy.default)
        assert report.get_content_type() == "multipart/report"
        assert b"Final-Recipient: rfc822; bob@gone.example" in bounce.content
        assert b"Status: 5.1.1" in bounce.content
        assert b"Suppressed: it failed on" in bounce.content
        assert await relay.entries() == ()
        assert not list((relay.spool / "drop" / "failed").iterdir())


async def test_an_address_is_looked_up_as_it_is_queued(internet: Internet, clock: FakeClock, gone: Exchange) -> None:
    rules = (Rewrite(match="*@old.example", to="*@gone.example", of="recipients"),)
    async with relaying(internet, clock=clock, suppression=ON, rewrite=rules) as relay:
        await relay.send("bob@old.example")
        await relay.settled()
        assert await listed(relay) == ["bob@gone.example"]
        assert await refused(relay, "bob@old.example")


async def test_no_more_are_kept_than_may_be(internet: Internet, clock: FakeClock, gone: Exchange) -> None:
    async with relaying(internet, clock=clock, suppression=replace(ON, most=2)) as relay:
        for number in range(4):
            await relay.send(f"u{number}@gone.example")
            await relay.settled()
            await relay.later(60)
        assert await listed(relay) == ["u2@gone.example", "u3@gone.example"]


async def test_a_list_that_cannot_be_asked_refuses_nobody(
    internet: Internet, clock: FakeClock, gone: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.queue.errors import QueueError

    async def fail(addresses: object) -> None:
        raise QueueError("a page of it is damaged")

    async with relaying(internet, clock=clock, suppression=ON) as relay:
        await relay.send("bob@gone.example")
        await relay.settled()
        with monkeypatch.context() as patch:
            patch.setattr(relay.engine.queue.suppression, "of", fail)
            assert await refused(relay, "bob@gone.example") == ""
        await relay.clock.advance(11)
        assert await refused(relay, "bob@gone.example")


async def test_a_kill_forgets_nobody(internet: Internet, gone: Exchange) -> None:
    extra = "[suppression]\nenabled = true\n"
    async with serving(internet.nameserver, internet.port, extra) as served:
        async with smtp_client(served.port) as smtp:
            await smtp.sendmail("ann@example.com", ["bob@gone.example"], LETTER)
        await internet.wait_for(1)  # the notification, which is queued after the settlement
        served.kill()
        await served.start()
        async with smtp_client(served.port) as smtp:
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as answer:
                await smtp.sendmail("ann@example.com", ["bob@gone.example"], LETTER)
        (one,) = answer.value.recipients
        assert one.message.endswith("with: 550 5.1.1 No such user here")


async def test_operators_enter_take_off_export_and_import(internet: Internet, gone: Exchange, tmp_path: Path) -> None:
    extra = "[suppression]\nenabled = true\n"
    async with serving(internet.nameserver, internet.port, extra) as served:
        async with smtp_client(served.port) as smtp:
            await smtp.sendmail("ann@example.com", ["bob@gone.example"], LETTER)
        await internet.wait_for(1)

        async def command(*words: str) -> tuple[int, list[str], str]:
            done = await asyncio.to_thread(served.command, "suppress", *words)
            return done.returncode, done.stdout.splitlines(), done.stderr

        status, said, _ = await command("add", "Joe@Good.Example", "--for", "400d")
        assert status == 2
        status, said, _ = await command("add", "Joe@Good.Example", "--for", "2d", "--note", "asked, us not to")
        assert (status, said) == (0, ["joe@good.example is on the list: no new mail to it is taken"])
        async with smtp_client(served.port) as smtp:
            await smtp.ehlo()
            await smtp.mail("ann@example.com")
            with pytest.raises(aiosmtplib.SMTPRecipientRefused, match="no mail to this address is taken here"):
                await smtp.rcpt("joe@good.example")
        status, said, _ = await command("list", "@good.")
        assert said[1].split()[:1] == ["joe@good.example"]
        assert len(said) == 2
        rows = [json.loads(row) for row in (await command("list", "--json"))[1]]
        assert [(row["address"], row["by"] == "engine") for row in rows] == [
            ("bob@gone.example", True),
            ("joe@good.example", False),
        ]
        explained = await asyncio.to_thread(served.command, "explain", "bob@gone.example")
        assert explained.stdout.startswith(
            "bob@gone.example: suppressed\n  new mail to it is refused until its time is "
        )
        assert "with: 550 5.1.1 No such user here\n" in explained.stdout
        _, exported, _ = await command("export")
        assert exported[0] == "address,since,until,by,reply,note"
        assert exported[1].endswith(",engine,550 5.1.1 No such user here,")
        file = tmp_path / "list.csv"
        file.write_text("\n".join(exported) + "\n")
        for address in ("bob@gone.example", "joe@good.example"):
            assert (await command("remove", address))[0] == 0
        assert (await command("remove", "bob@gone.example"))[0] == 1
        assert (await command("list"))[1] == []
        status, said, _ = await command("import", str(file))
        assert (status, said) == (0, ["2 addresses entered: 2 new, 0 changed"])
        assert (await command("export"))[1] == exported
        bare = tmp_path / "bare.txt"
        bare.write_text("".join(f"u{number}@many.example\n" for number in range(250)) + "nobody\n")
        status, said, wrong = await command("import", str(bare))
        assert (status, said) == (1, [])
        assert "bare.txt: line 251: nobody: no @ after the local part" in wrong
        bare.write_text("".join(f"u{number}@many.example\n" for number in range(250)))
        status, said, _ = await command("import", str(bare), "--note", "of the old list")
        assert said == ["250 addresses entered: 250 new, 0 changed"]
        assert (await command("import", str(bare)))[1] == ["250 addresses entered: 0 new, 250 changed"]
        status, _, wrong = await command("add", "postmaster@relay.example.net")
        assert status == 1
        assert "looks after this relay" in wrong
