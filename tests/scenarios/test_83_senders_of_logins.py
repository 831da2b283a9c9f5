"""83. Who logs in sends as himself: the senders of a login are kept with it, and no other is taken."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.address import parse_path
from engine.intake.smtp.listener import SmtpIntake
from engine.intake.smtp.senders import SenderError, may_send, own_address, read_sender, senders_of
from engine.intake.smtp.users import UsersError, UsersFile
from engine.settings.settings import Limits
from tests.scenarios.submitting import Keys, Talk, made_keys, secured, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

OF_OTHERS = "MAIL FROM:<boss@shop.example>"


@pytest.fixture
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


async def logged_in(client: Talk, name: str, password: str = "secret") -> None:
    assert (await client.log_in(name, password)).startswith("235")


async def test_a_login_that_is_an_address_sends_as_it_and_as_nobody_else(keys: Keys) -> None:
    queue = FakeArrivals()
    keys.file.set("ann@shop.example", "secret")
    async with submission(keys, queue) as server:
        async with secured(server.submission_addresses[0], keys) as client:
            await logged_in(client, "ann@shop.example")
            assert await client.say(OF_OTHERS) == (
                "553 5.7.1 boss@shop.example is not a sender of the login ann@shop.example, which may send as "
                "ann@shop.example"
            )
            assert (await client.say("RCPT TO:<bob@example.net>")).startswith("503")
            assert (await client.say("MAIL FROM:<Ann@SHOP.example>")).startswith("250")
        await until(lambda: bool(queue.events_recorded))
    (event,) = queue.events_recorded
    assert (event.kind, event.sender) == ("refused", "boss@shop.example")
    assert event.text == "smtp 127.0.0.1: no sender of the login: ann@shop.example"


async def test_a_login_that_is_none_sends_as_itself_at_the_name_of_the_relay_and_the_reply_says_so(keys: Keys) -> None:
    keys.file.set("carl", "secret")
    async with submission(keys, FakeArrivals()) as server, secured(server.submission_addresses[0], keys) as client:
        await logged_in(client, "carl")
        assert await client.say("MAIL FROM:<carl@example>") == (
            "553 5.7.1 carl@example is not a sender of the login carl, which may send as carl@relay.example"
        )
        assert (await client.say("MAIL FROM:<carl@relay.example>")).startswith("250")


async def test_the_null_sender_is_everybodys_and_the_from_field_is_not_looked_at(keys: Keys) -> None:
    queue = FakeArrivals()
    keys.file.set("carl", "secret")
    async with submission(keys, queue) as server, secured(server.submission_addresses[0], keys) as client:
        await logged_in(client, "carl")
        for sender in ("", "carl@relay.example"):
            assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("250")
            assert (await client.say("RCPT TO:<bob@example.net>")).startswith("250")
            assert (await client.say("DATA")).startswith("354")
            client.send(b"From: boss@shop.example\r\n\r\nhello\r\n.\r\n")
            assert (await client.reply()).startswith("250")
    assert [message.sender for message in queue.messages] == ["", "carl@relay.example"]


async def test_who_may_relay_by_its_address_sends_as_anybody(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server, talk(server.addresses[0]) as client:
        assert (await client.reply()).startswith("220")
        await client.ehlo()
        assert (await client.say(OF_OTHERS)).startswith("250")


async def test_what_is_refused_uses_up_no_limit(keys: Keys) -> None:
    limits = Limits(messages_per_minute_per_login=1)
    async with (
        submission(keys, FakeArrivals(), limits=limits) as server,
        secured(server.submission_addresses[0], keys) as client,
    ):
        await logged_in(client, "ann")
        for _ in range(3):
            assert (await client.say(OF_OTHERS)).startswith("553 5.7.1")
        assert (await client.mail()).startswith("250")
        assert (await client.mail()).startswith("450")


async def test_a_change_counts_from_the_next_login_on(keys: Keys) -> None:
    async with submission(keys, FakeArrivals()) as server:
        door = server.submission_addresses[0]
        async with secured(door, keys) as before:
            await logged_in(before, "ann")
            keys.file.name_senders("ann", ["*@shop.example", "ann@other.example"])
            async with secured(door, keys) as after:
                await logged_in(after, "ann")
                assert (await after.say(OF_OTHERS)).startswith("250")
                await after.say("RSET")
                assert (await after.mail()).endswith("which may send as *@shop.example, ann@other.example")
            assert (await before.say(OF_OTHERS)).startswith("553")
            assert (await before.mail()).startswith("250")


# -- logins from before senders were kept -----------------------------------------------------------------------------


def make_old(file: UsersFile, *names: str) -> None:
    """Have these lines without senders, as they were written before there were any."""
    lines = file.path.read_text().splitlines(keepends=True)
    file.path.write_text(
        "".join(line.rpartition(":")[0] + "\n" if line.split(":")[0] in names else line for line in lines)
    )


async def test_a_login_from_before_sends_as_anybody_as_it_always_could_and_health_says_so(keys: Keys) -> None:
    make_old(keys.file, "ann")
    async with submission(keys, FakeArrivals()) as server:
        assert noted(server) == (
            "intake.submission.users: 1 login from before senders were kept may send as anybody (ann); `smarthost user"
            " senders NAME ADDRESS` names theirs, --own is their own address"
        )
        assert not server.trouble
        async with secured(server.submission_addresses[0], keys) as client:
            await logged_in(client, "ann")
            assert (await client.say(OF_OTHERS)).startswith("250")
        keys.file.set("ann", "other")  # a new password is no change of senders
        assert keys.file.users()["ann"].senders is None
        keys.file.name_senders("ann", [])
        await asyncio.to_thread(server.look)
        assert not server.notes
        async with secured(server.submission_addresses[0], keys) as client:
            await logged_in(client, "ann", "other")
            assert (await client.say(OF_OTHERS)).endswith("which may send as ann@relay.example")


async def test_of_many_from_before_a_few_are_named(keys: Keys) -> None:
    names = [f"login{number}" for number in range(8)]
    for name in names:
        keys.file.set(name, "secret")
    make_old(keys.file, *names)
    async with submission(keys, FakeArrivals()) as server:
        assert noted(server).startswith(
            "intake.submission.users: 8 logins from before senders were kept may send as anybody (login0, login1, "
            "login2, login3, login4 and 3 more); "
        )


def noted(server: SmtpIntake) -> str:
    (note,) = server.notes
    return note


# -- what is a sender -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "sender", "allowed"),
    [
        (["ann@shop.example"], "ann@shop.example", True),
        (["Ann@Shop.Example"], "aNN@sHOP.example", True),
        (["ann@shop.example"], "ann@sub.shop.example", False),
        (["ann@shop.example"], "annn@shop.example", False),
        (["ann@shop.example"], "ann+news@shop.example", False),
        (["*@shop.example"], "whoever@shop.example", True),
        (["*@shop.example"], "whoever@sub.shop.example", False),
        (["*@shop.example"], "whoever@notshop.example", False),
        (["*@b\u00fccher.example"], "a@xn--bcher-kva.example", True),
        (["j\u00fcrgen@shop.example"], "ju\u0308rgen@shop.example", True),
        (["j\u00fcrgen@shop.example"], "jurgen@shop.example", False),
        (["bob@shop.example", "*@a.example"], "x@a.example", True),
        (["*"], "who@ever.example", True),
        (["*"], "", True),
        (["ann@shop.example"], "", True),
        ([], "", True),
        ([], "ann@shop.example", False),
    ],
)
def test_who_is_allowed_is_who_is_named(named: list[str], sender: str, allowed: bool) -> None:
    address = parse_path(f"<{sender}>", sender=True)
    assert may_send(tuple(map(read_sender, named)), address) is allowed


@pytest.mark.parametrize(
    ("login", "own"),
    [
        ("ann", "ann@relay.example"),
        ("ann@Shop.example", "ann@shop.example"),
        ("postmaster", "postmaster@relay.example"),
        ("j\u00fcrgen", "j\u00fcrgen@relay.example"),
        ("DOMAIN\\ann", ""),
        ("ann@", ""),
        ("*", ""),  # which would else be anybody
        ("*@shop.example", ""),
    ],
)
def test_the_own_address_of_a_login(login: str, own: str) -> None:
    assert own_address(login, "relay.example") == own
    assert senders_of(login, (), "relay.example") == ((own,) if own else ())
    assert senders_of(login, None, "relay.example") == ("*",)


@pytest.mark.parametrize("wrong", ["", "boss", "<>", "a@b@c", "*@", "**", "*@*.shop.example", '"a b"@shop.example'])
def test_what_is_no_sender_is_refused_with_what_is_allowed(wrong: str) -> None:
    with pytest.raises(SenderError, match=r'"\*@'):
        read_sender(wrong)


def test_a_line_with_what_is_no_sender_lets_nobody_in_and_is_named(tmp_path: Path) -> None:
    file = UsersFile(tmp_path / "users")
    file.set("ann", "secret", ["ann@shop.example", "*@other.example"])
    assert file.users()["ann"].senders == ("ann@shop.example", "*@other.example")
    file.path.write_text(file.path.read_text().replace("*@other.example", "other.example"))
    with pytest.raises(UsersError, match=r"line 2: other\.example: no @ after the local part; allowed are addresses"):
        file.users()
