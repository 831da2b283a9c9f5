"""Those who log in hand us mail from anywhere: under TLS only, and nothing that was said before it counts."""

import asyncio
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from ipaddress import ip_network
from pathlib import Path

import aiosmtplib
import pytest

from engine.intake.errors import IntakeError
from engine.intake.reply import goodbye
from engine.intake.smtp.listener import SmtpIntake
from engine.intake.smtp.users import Logins, Unavailable, UsersError, UsersFile
from engine.settings.file import SettingsError, load
from engine.settings.settings import Settings
from tests.clock import FakeClock
from tests.scenarios.submitting import ANYWHERE, Keys, made_keys, plain, secured, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import PATIENCE, until

NOBODY = (ip_network("192.0.2.0/24"),)


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


@pytest.mark.parametrize("implicit", [False, True])
async def test_who_has_logged_in_may_send_to_anyone_and_the_trace_says_how(keys: Keys, implicit: bool) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue, relay_networks=NOBODY) as server:
        door = (server.submission_tls_addresses if implicit else server.submission_addresses)[0]
        client = aiosmtplib.SMTP(
            hostname="localhost", port=door.port, use_tls=implicit, start_tls=not implicit, tls_context=keys.client,
            local_hostname="client.example", username="ann", password="secret",
        )  # fmt: skip
        async with client:
            await client.sendmail("ann@example.com", ["bob@example.net"], b"From: ann@example.com\r\n\r\nhi\r\n")
    (message,) = queue.messages
    parsed = message_from_bytes(message.named(1))
    assert re.search(r"with ESMTPSA\s+\(TLSv1\.[23], [A-Z0-9_-]+\)\s+id 1\s+for <", parsed["Received"])
    assert parsed["Date"]
    assert parsed["Message-ID"].endswith("@relay.example>")
    assert message.message_id == parsed["Message-ID"]  # it is known by that, in lists and in the mail log
    assert message.origin == "smtp 127.0.0.1 as ann"


async def test_login_works_with_and_without_an_initial_response(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server:
        door = server.submission_tls_addresses[0]
        for first in ("AUTH LOGIN", "auth login YW5u"):
            async with talk(door, tls=keys.client) as client:
                await client.reply()
                assert "AUTH PLAIN LOGIN" in await client.ehlo()
                reply = await client.say(first)
                if reply == "334 VXNlcm5hbWU6":
                    reply = await client.say("YW5u")
                assert reply == "334 UGFzc3dvcmQ6"
                assert (await client.say("c2VjcmV0")).startswith("235 2.7.0")
                assert (await client.say("AUTH LOGIN")).startswith("503")
                assert (await client.mail()).startswith("250")


async def test_no_password_goes_in_the_clear(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server, talk(server.submission_addresses[0]) as client:
        await client.reply()
        offers = await client.ehlo()
        assert "STARTTLS" in offers
        assert not any(offer.startswith("AUTH") for offer in offers)
        assert (await client.log_in()).startswith("538 5.7.11")
        assert (await client.say("MAIL FROM:<ann@example.com>")).startswith("530 5.7.0")
    assert not queue.messages


async def test_who_may_relay_by_address_must_log_in_here_all_the_same(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server, secured(server.submission_addresses[0], keys) as client:
        assert (await client.say("MAIL FROM:<ann@example.com>")).startswith("530 5.7.0")
        assert (await client.say("RCPT TO:<bob@example.net>")).startswith("503")


async def test_what_was_sent_before_tls_is_thrown_away(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server, talk(server.submission_addresses[0]) as client:
        await client.reply()
        await client.ehlo()
        client.send(
            b"STARTTLS\r\nEHLO thief.example\r\nNOOP\r\nAUTH PLAIN " + plain("ann", "secret").encode() + b"\r\n"
        )
        assert (await client.reply()).startswith("220")
        await client.writer.start_tls(keys.client, server_hostname="localhost")
        # Nothing of it was done: no reply waits, the name is forgotten, nobody has logged in.
        assert (await client.say("VRFY bob")).startswith("252")
        assert (await client.log_in()).startswith("503")
        await client.ehlo()
        assert (await client.say("MAIL FROM:<ann@example.com>")).startswith("530 5.7.0 Authentication")
        assert (await client.log_in()).startswith("235")
        assert (await client.say("STARTTLS")).startswith("503")
    assert any("clear text after STARTTLS" in event.text for event in queue.events_recorded)


@pytest.mark.parametrize("junk", [b"NOOP\r\n", b"x"])
async def test_however_much_was_sent_before_tls_nothing_of_it_is_done(keys: Keys, junk: bytes) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server:
        async with talk(server.submission_addresses[0]) as thief:
            await thief.reply()
            await thief.ehlo()
            thief.send(b"STARTTLS\r\n" + junk * 500_000)
            assert (await thief.reply()).startswith("220")
            said = b""
            with suppress(ConnectionError):  # what was still on its way is no handshake
                said = await thief.reader.read()
            assert b"250" not in said
        async with secured(server.submission_addresses[0], keys) as client:
            assert (await client.log_in()).startswith("235")
            assert server.sessions == 1
    assert any("clear text after STARTTLS" in event.text for event in queue.events_recorded)


async def test_an_answer_to_auth_has_an_end_and_its_time(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server:
        async with secured(server.submission_addresses[0], keys) as client:
            assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
            client.send(b"A" * 200_000)
            assert await client.reply() == "421 4.7.0 relay.example The line is far too long"
            assert await _end(client.reader)
        for answers in ((), ("YW5u",), ("YW5u", "c2Vj")):
            async with secured(server.submission_addresses[0], keys) as client:
                assert await client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6"
                for answer in answers[:1]:
                    assert await client.say(answer) == "334 UGFzc3dvcmQ6"
                client.send("".join(answers[1:]).encode())
                (session,) = server._sessions
                session.connection.heard(until=asyncio.get_running_loop().time() + 0.05)
                assert await client.reply() == "421 4.4.2 relay.example Too slow, closing the connection"
                await asyncio.wait_for(session.ended, PATIENCE)


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_handshake_that_is_never_made_ends_in_time(
    keys: Keys, implicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("listener", "connection"):
        monkeypatch.setattr(f"engine.intake.smtp.{module}.HANDSHAKE", 0.2)
    async with submission(keys, FakeArrivals()) as server:
        door = (server.submission_tls_addresses if implicit else server.submission_addresses)[0]
        async with talk(door) as client:
            if not implicit:
                await client.reply()
                await client.ehlo()
                assert (await client.say("STARTTLS")).startswith("220")
            assert await asyncio.wait_for(_end(client.reader), PATIENCE)
            await until(lambda: not server.sessions)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("implicit", [False, True])
async def test_who_leaves_in_the_handshake_leaves_no_session(keys: Keys, implicit: bool, how: str) -> None:
    async with submission(keys, FakeArrivals()) as server:
        door = (server.submission_tls_addresses if implicit else server.submission_addresses)[0]
        async with talk(door) as client:
            if not implicit:
                await client.reply()
                await client.ehlo()
                assert (await client.say("STARTTLS")).startswith("220")
            await until(lambda: bool(server.sessions))
            getattr(client.writer.transport, how)()
            await until(lambda: not server.sessions and not len(server._reception.occupancy))


async def test_who_is_sent_away_in_the_handshake_hears_nothing_in_the_clear(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server, talk(server.submission_addresses[0]) as client:
        await client.reply()
        await client.ehlo()
        assert (await client.say("STARTTLS")).startswith("220")
        (session,) = server._sessions
        session.close(goodbye("4.3.2", "relay.example", "Why"))
        said = b""
        with suppress(ConnectionError):
            said = await client.reader.read()
        assert said == b""
        await asyncio.wait_for(session.ended, PATIENCE)
        assert server.sessions == 0


async def test_a_handshake_that_fails_ends_its_session_and_no_other(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server:
        for door, first in (
            (server.submission_addresses[0], b"STARTTLS\r\n"),
            (server.submission_tls_addresses[0], b""),
        ):
            async with talk(door) as client:
                if first:
                    await client.reply()
                    await client.ehlo()
                    client.send(first)
                    await client.reply()
                client.send(b"this is no handshake\r\n" * 20)
                assert await asyncio.wait_for(_end(client.reader), PATIENCE) is True
        async with secured(server.submission_addresses[0], keys) as client:
            assert (await client.log_in()).startswith("235")
            assert server.sessions == 1


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("AUTH", "501"),
        ("AUTH CRAM-MD5", "504"),
        ("AUTH PLAIN !!!", "501"),
        ("AUTH PLAIN =", "501"),
        ("AUTH PLAIN /w==", "501"),
        ("AUTH PLAIN " + plain("ann", "secret", identity="bob"), "535"),
        ("AUTH PLAIN " + plain("ann", "wrong"), "535 5.7.8"),
        ("AUTH PLAIN " + plain("ann", ""), "535 5.7.8"),
        ("AUTH PLAIN " + plain("", ""), "535 5.7.8"),
        ("AUTH PLAIN " + plain("nobody", "secret"), "535 5.7.8"),
        ("AUTH PLAIN a b", "501"),
        ("AUTH PLAIN\r\n*", "501"),
        ("AUTH PLAIN\r\n" + "A" * 13_000, "500 5.5.6"),
    ],
)
async def test_what_is_no_right_login_is_refused(keys: Keys, line: str, reply: str) -> None:
    async with submission(keys, FakeArrivals()) as server, secured(server.submission_addresses[0], keys) as client:
        answer = await client.say(line)
        if "\r\n" in line:
            assert answer == "334 "
            answer = await client.reply()
        assert answer.startswith(reply)
        assert (await client.log_in()).startswith("235")
        assert (await client.say("MAIL FROM:<ann@example.com> AUTH=<>")).startswith("250")


async def test_a_change_of_the_users_counts_at_once_and_a_missing_file_is_no_refusal(tmp_path: Path) -> None:
    file = UsersFile(tmp_path / "users")
    logins = Logins(file.path)
    try:
        with pytest.raises(Unavailable, match="nobody can log in"):
            await logins.right("ann", "secret")
        assert "users cannot be read" in logins.trouble
        assert file.set("ann", "secret") is True
        assert await logins.right("ann", "secret")
        assert not logins.trouble
        assert file.set("ann", "other") is False
        assert not await logins.right("ann", "secret")
        assert await logins.right("ann", "other")
        file.remove("ann")
        assert not await logins.right("ann", "other")
    finally:
        logins.close()


async def test_a_login_that_does_not_exist_takes_as_much_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.intake.smtp import users

    file = UsersFile(tmp_path / "users")
    file.set("ann", "secret")
    logins = Logins(file.path)
    tried: list[str] = []

    class Counting:
        def verify(self, hashed: str, secret: bytes) -> bool:
            tried.append(hashed.rsplit("$", 2)[0])
            return False

    monkeypatch.setattr(users, "_HASHER", Counting())
    try:
        for name in ("ann", "nobody"):
            assert not await logins.right(name, "guess")
    finally:
        logins.close()
    assert len(tried) == 2
    assert tried[0] == tried[1]


def test_the_file_of_users_is_for_its_owner_alone_and_no_name_can_break_it(tmp_path: Path) -> None:
    file = UsersFile(tmp_path / "users")
    file.set("ann", "secret")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    for name in ("", "a:b", "a b", "a\nb", "#a", "a\x1b[2J", "x" * 256):
        with pytest.raises(UsersError, match="no name for a login"):
            file.set(name, "secret")
    for password in ("", "a\0b", "x" * 1025):
        with pytest.raises(UsersError, match="password"):
            file.set("bob", password)
    with pytest.raises(UsersError, match="no such login"):
        file.remove("bob")
    assert list(file.users()) == ["ann"]
    assert [path.name for path in tmp_path.iterdir()] == ["users"]


def test_settings_that_cannot_work_are_named(tmp_path: Path) -> None:
    path = tmp_path / "smarthost.toml"
    path.write_text('[intake.submission]\nlisten = ["127.0.0.1:0"]\ncertificate = "relative.pem"\n')
    with pytest.raises(SettingsError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.startswith("intake.submission.certificate: 'relative.pem' depends on where one stands")
    path.write_text('[intake.submission]\nlisten_tls = ["127.0.0.1:0"]\n')
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        f"intake.submission.{name}" for name in ("certificate", "key", "users")
    ]


@pytest.mark.parametrize("wrong", ["missing", "empty", "not the key's"])
async def test_a_certificate_that_is_of_no_use_keeps_intake_from_starting(
    keys: Keys, tmp_path: Path, wrong: str
) -> None:
    from msgspec.structs import replace

    from engine.settings.settings import Intake, Smtp

    certificate = tmp_path / "cert.pem"
    if wrong == "empty":
        certificate.touch()
    elif wrong == "not the key's":
        with made_keys() as others:
            certificate.write_bytes(others.certificate.read_bytes())
    settings = replace(
        Settings(), intake=Intake(smtp=Smtp(listen=ANYWHERE), submission=keys.submission(certificate=certificate))
    )
    with pytest.raises(IntakeError, match=r"intake\.submission\.certificate: .*cert\.pem"):
        await SmtpIntake(FakeArrivals(), settings, FakeClock()).start()


async def _end(reader: asyncio.StreamReader) -> bool:
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    return True
