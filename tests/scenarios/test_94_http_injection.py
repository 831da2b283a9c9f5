"""94. Programs post mail over HTTP: at the control socket, and over the network with a token; by the rules of SMTP."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.engine import CannotStart, Engine
from engine.intake.http import counter
from engine.model.suppression import Suppressed
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import (
    Delivery,
    Dns,
    Http,
    Intake,
    Limits,
    Listen,
    Nameserver,
    Settings,
    Smtp,
    Suppression,
)
from tests.clock import FakeClock
from tests.scenarios.submitting import made_keys
from tests.serving import serving
from tests.waiting import until

SECRET = "0123456789abcdef0123456789abcdef"
LETTER = b"From: web@shop.example\r\nTo: bob@example.org\r\nSubject: order\r\n\r\nIt is here.\r\n"
PARTS: dict[str, Any] = {"from": "Shop <web@shop.example>", "to": "bob@example.org", "text": "It is here."}
AS_IT_IS = {"Content-Type": "message/rfc822"}


class Posting:
    """An engine that takes posts, and a client."""

    def __init__(self, engine: Engine, session: aiohttp.ClientSession, clock: FakeClock, url: str) -> None:
        self.engine = engine
        self.session = session
        self.clock = clock
        self.url = url

    async def post(self, body: Any, token: str = SECRET, **headers: str) -> tuple[int, dict[str, Any]]:
        """Post JSON, or a message as it is; give the status and what is answered."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            given["Authorization"] = f"Bearer {token}"
        if isinstance(body, bytes):
            given = AS_IT_IS | given
        else:
            given, body = {"Content-Type": "application/json"} | given, json.dumps(body).encode()
        async with self.session.post(self.url, data=io.BytesIO(body), headers=given) as answer:
            found = json.loads(await answer.read())
            if answer.status in (429, 503):
                assert int(answer.headers["Retry-After"]) > 0
            return answer.status, found

    async def refused(self) -> list[str]:
        """What the events tell of refusals."""
        await self.engine.smtp.reception.refusals.finish(5)
        return [event.text for event in await self.engine.queue.listing.events(limit=100) if event.kind == "refused"]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# who may post\nshop {SECRET} *@shop.example\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def posting(
    internet: Internet,
    clock: FakeClock,
    folder: Path,
    http: Http,
    *,
    context: Any = None,
    suppression: Suppression | None = None,
    **intake: Any,
) -> AsyncIterator[Posting]:
    host, _, port = internet.nameserver.rpartition(":")
    settings = Settings(
        hostname="relay.example.net",
        spool=folder / "spool",
        intake=Intake(http=http, **{"smtp": Smtp(listen=()), "min_free": 0, **intake}),
        dns=Dns(nameservers=(Nameserver(host, int(port)),)),
        delivery=replace(Delivery(port=internet.port, idle=0.0), loopback_exchanges=True),
        suppression=suppression or Suppression(),
    )
    engine = Engine(settings, clock=clock)
    await engine.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context or True)) as session:
            at = engine.http.addresses[0].port if http.listen else 0
            scheme = "https" if context else "http"
            yield Posting(engine, session, clock, f"{scheme}://localhost:{at}/v1/messages")
    finally:
        await engine.stop(drain=0.3)


@pytest.fixture
def here(tokens: Path) -> Http:
    return Http(listen=(Listen("127.0.0.1", 0),), tokens=tokens)


@pytest.fixture
async def exchange(internet: Internet) -> Exchange:
    (found,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    return found


@pytest.fixture
async def posted(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http, exchange: Exchange
) -> AsyncIterator[Posting]:
    async with posting(internet, clock, tmp_path, here) as found:
        yield found


async def test_a_message_as_it_is_is_taken_and_arrives(posted: Posting, exchange: Exchange) -> None:
    envelope = {"X_Envelope_From": "bounces@shop.example", "X_Envelope_To": "bob@example.org, eve@example.org"}
    assert await posted.post(LETTER) == (202, {"message": 1})
    assert await posted.post(LETTER, **envelope) == (202, {"message": 2})
    await exchange.wait_for(2)
    plain, enveloped = sorted(exchange.delivered, key=lambda each: len(each.recipients))
    assert (plain.sender, plain.recipients) == ("web@shop.example", ("bob@example.org",))
    assert (enveloped.sender, enveloped.recipients) == (
        "bounces@shop.example",
        ("bob@example.org", "eve@example.org"),
    )
    assert b"X-Envelope" not in enveloped.content
    assert plain.content.startswith(
        b"Received: from http ([127.0.0.1])\r\n\tby relay.example.net (smarthost) with HTTP\r\n"
    )
    assert b"\r\nMessage-ID: <" in plain.content
    assert plain.content.endswith(b"\r\n" + LETTER)


async def test_the_parts_of_a_message_are_made_into_one(posted: Posting, exchange: Exchange) -> None:
    parts = {
        "from": "Käthe, Shop <web@shop.example>",
        "to": ["Bob <bob@example.org>", '"Eve, the other" <eve@example.org>'],
        "cc": "cy@example.org",
        "bcc": ["di@example.org"],
        "subject": "Grüße " + "und mehr " * 30,
        "text": "Größe\n.\nFrom here\n",
        "html": "<p>Größe</p>",
        "headers": {"Reply-To": "help@shop.example", "X-Order": "17"},
    }
    assert (await posted.post(parts))[0] == 202
    await exchange.wait_for(1)
    (delivery,) = exchange.delivered
    assert delivery.recipients == ("bob@example.org", "eve@example.org", "cy@example.org", "di@example.org")
    assert b"di@example.org" not in delivery.content
    assert delivery.content.isascii()
    assert max(map(len, delivery.content.split(b"\r\n"))) <= 100
    read = message_from_bytes(delivery.content, policy=policy.default)
    assert read["From"].addresses[0].display_name == "Käthe, Shop"
    assert [str(each) for each in read["To"].addresses] == [
        "Bob <bob@example.org>",
        '"Eve, the other" <eve@example.org>',
    ]
    assert read["Subject"].strip() == str(parts["subject"]).strip()
    assert (read["Reply-To"], read["X-Order"], read["Cc"]) == ("help@shop.example", "17", "cy@example.org")
    told = [part.get_content().replace("\r\n", "\n") for part in read.iter_parts()]
    assert told == ["Größe\n.\nFrom here\n", "<p>Größe</p>\n"]


async def test_what_comes_again_with_its_key_is_one_message_and_another_body_is_another(
    posted: Posting, exchange: Exchange
) -> None:
    both = PARTS | {"html": "<p>It is here.</p>"}
    for _ in range(3):
        assert await posted.post(both, Idempotency_Key="order-17") == (202, {"message": 1})
    assert await posted.post(PARTS | {"text": "another"}, Idempotency_Key="order-17") == (202, {"message": 2})
    assert await posted.post(both, Idempotency_Key="order-18") == (202, {"message": 3})
    assert await posted.post(both) == (202, {"message": 4})
    await exchange.wait_for(4)
    assert exchange.messages == 4


async def test_keys_of_long_ago_are_let_go(posted: Posting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "KEYS_KEPT", 0)
    monkeypatch.setattr(counter, "_SWEPT_EVERY", 1)
    assert await posted.post(PARTS, Idempotency_Key="a") == (202, {"message": 1})
    assert await posted.post(PARTS, Idempotency_Key="b") == (202, {"message": 2})
    assert await posted.post(PARTS, Idempotency_Key="b") == (202, {"message": 2})
    assert await posted.post(PARTS, Idempotency_Key="a") == (202, {"message": 3})


@pytest.mark.parametrize(
    ("body", "headers", "status", "where", "words"),
    [
        (b"To: bob@example.org\r\n\r\nx\r\n", {}, 400, "sender", "X-Envelope-From or From must name one"),
        (b"From: web@shop.example\r\n\r\nx\r\n", {}, 400, "recipients", "To, Cc, Bcc"),
        (LETTER + b"\0", {}, 400, "content", "NUL"),
        (LETTER, {"X_Envelope_From": "nobody"}, 400, "X-Envelope-From", "ann@example.org"),
        (LETTER, {"Content_Type": "text/plain"}, 415, "Content-Type", "message/rfc822 or application/json"),
        (LETTER, {"Content_Encoding": "gzip"}, 415, "Content-Encoding", "as it is"),
        (LETTER, {"Idempotency_Key": "k" * 201}, 400, "Idempotency-Key", "200 characters"),
        (LETTER * 20_000, {}, 413, "body", "intake.smtp.max_message_size"),
        (PARTS, {"X_Envelope_To": "a@b.example"}, 400, "X-Envelope-To", "bcc"),
        ([], {}, 400, "", "from, to, cc"),
        ({"from": "web@shop.example"}, {}, 400, "to", "one address each"),
        (PARTS | {"tp": "x"}, {}, 400, "", "from, to, cc"),
        (PARTS | {"to": "bob@example.org, eve@example.org"}, {}, 400, "to", "one address each"),
        (PARTS | {"to": ["bob@example.org", "nobody"]}, {}, 400, "to[1]", "one address each"),
        (PARTS | {"to": ["bob@example.org"] * 1001}, {}, 400, "to", "1000"),
        (PARTS | {"subject": "a\r\nBcc: eve@example.org"}, {}, 400, "subject", "one line"),
        (PARTS | {"from": "Shop\n <web@shop.example>"}, {}, 400, "from", "one line"),
        (PARTS | {"headers": {"X-A": "b\nBcc: eve@example.org"}}, {}, 400, "headers.X-A", "one line"),
        (PARTS | {"headers": {"X A": "b"}}, {}, 400, "headers.X A", "letters"),
        (PARTS | {"headers": {"BCC": "eve@example.org"}}, {}, 400, "headers.BCC", "Reply-To"),
        (PARTS | {"from": "boss@else.example"}, {}, 403, "sender", "*@shop.example"),
        (LETTER, {"X_Envelope_From": "boss@else.example"}, 403, "sender", "*@shop.example"),
    ],
)
async def test_what_cannot_be_taken_is_said_with_what_is_allowed(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http, body: Any, headers: dict[str, str], status: int,
    where: str, words: str,
) -> None:  # fmt: skip
    smtp = Smtp(listen=(), max_message_size=1024 * 1024)
    async with posting(internet, clock, tmp_path, here, smtp=smtp) as posted:
        answered, told = await posted.post(body, **headers)
        assert (answered, told["where"]) == (status, where), told
        assert words in told["allowed"] + told["what"]
        assert (await posted.engine.queue.listing.totals()).waiting == 0


async def test_a_body_of_which_nobody_says_how_long_it_is_is_read_no_further_than_is_allowed(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 64 * 1024

    smtp = Smtp(listen=(), max_message_size=1024 * 1024)
    async with posting(internet, clock, tmp_path, here, smtp=smtp) as posted:
        headers = AS_IT_IS | {"Authorization": f"Bearer {SECRET}"}
        async with posted.session.post(posted.url, data=endless(), headers=headers) as answer:
            assert answer.status == 413
        assert posted.engine.smtp.reception.held == 0


async def test_a_large_message_is_taken_as_a_small_one_is(posted: Posting, exchange: Exchange) -> None:
    body = LETTER + b"and so on, and so on\r\n" * 100_000
    assert await posted.post(body, Idempotency_Key="large") == (202, {"message": 1})
    assert await posted.post(body, Idempotency_Key="large") == (202, {"message": 1})
    await exchange.wait_for(1)
    assert exchange.delivered[0].content.endswith(body)
    assert posted.engine.smtp.reception.held == 0


async def test_who_has_no_token_of_ours_posts_nothing_and_that_is_told(posted: Posting, tokens: Path) -> None:
    for wrong in ("", SECRET[:-1], SECRET.upper(), SECRET + "0", "x" * 5000):
        status, told = await posted.post(LETTER, token=wrong)
        assert (status, told["where"]) == (401, "Authorization")
    assert any(text.startswith("http 127.0.0.1: token unknown") for text in await posted.refused())
    # Whoever is in the file counts from the next look on, and nobody while it is wrong.
    tokens.write_text(f"other {SECRET.upper()}\n")
    posted.engine.http.look()
    assert (await posted.post(LETTER))[0] == 401
    status, told = await posted.post(LETTER, token=SECRET.upper())
    assert (status, told["allowed"]) == (403, "other@relay.example.net")
    tokens.chmod(0o644)
    tokens.write_text(f"shop {SECRET} *\n")
    posted.engine.http.look()
    assert (await posted.post(LETTER))[0] == 503
    assert "intake.http.tokens: nobody can post: " in posted.engine.trouble
    tokens.chmod(0o600)
    posted.engine.http.look()
    assert (await posted.post(LETTER))[0] == 202
    assert posted.engine.trouble == ""


async def test_who_is_not_of_the_networks_posts_nothing(
    internet: Internet, clock: FakeClock, tmp_path: Path, tokens: Path
) -> None:
    far = Http(listen=(Listen("127.0.0.1", 0),), tokens=tokens, networks=())
    async with posting(internet, clock, tmp_path, far) as posted:
        status, told = await posted.post(LETTER)
        assert (status, told["where"]) == (403, "127.0.0.1")
        assert any("not of its networks" in text for text in await posted.refused())


async def test_other_paths_and_methods_are_refused(posted: Posting) -> None:
    async with posted.session.get(posted.url) as answer:
        assert (answer.status, (await answer.json())["allowed"]) == (405, "POST")
    async with posted.session.post(f"{posted.url}/1") as answer:
        assert answer.status == 404


async def test_of_a_recipient_on_the_suppression_list_the_sender_is_told_and_the_others_have_it(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http, exchange: Exchange
) -> None:
    (sender,) = await internet.add("shop.example", mx=[(10, "mx.shop.example", Healthy())])
    async with posting(internet, clock, tmp_path, here, suppression=Suppression(enabled=True)) as posted:
        gone = Suppressed(address="gone@example.org", since=clock.now(), by="ann")
        await posted.engine.queue.suppression.enter([gone], "ann", "", 10)
        assert await posted.post(PARTS | {"to": ["bob@example.org", "gone@example.org"]}) == (202, {"message": 1})
        await exchange.wait_for(1)
        assert exchange.delivered[0].recipients == ("bob@example.org",)
        await sender.wait_for(1)
        assert b"gone@example.org" in sender.delivered[0].content


async def test_over_https_too(
    internet: Internet, clock: FakeClock, tmp_path: Path, tokens: Path, exchange: Exchange
) -> None:
    with made_keys() as keys:
        http = Http(listen=(Listen("127.0.0.1", 0),), tokens=tokens, certificate=keys.certificate, key=keys.key)
        async with posting(internet, clock, tmp_path, http, context=keys.client) as posted:
            assert (await posted.post(LETTER))[0] == 202
            await exchange.wait_for(1)
    assert b" with HTTPS\r\n" in exchange.delivered[0].content


async def test_limits_of_a_login_the_disk_and_a_pause_hold(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http
) -> None:
    limits = Limits(messages_per_minute_per_login=2, recipients_per_minute_per_login=4)
    async with posting(internet, clock, tmp_path, here, limits=limits, min_free=2**20) as posted:
        posted.engine.floor.free = lambda folder: 2**40
        many = {"X_Envelope_To": ", ".join(f"a{number}@example.org" for number in range(5))}
        assert (await posted.post(LETTER, **many))[0] == 429
        assert (await posted.post(LETTER))[0] == 429  # recipients drain by the minute
        assert (await posted.post(LETTER))[0] == 429  # messages as well
        await clock.advance(120)
        assert (await posted.post(LETTER))[0] == 202
        posted.engine.smtp.pause("by order")
        assert (await posted.post(LETTER))[0] == 503
        posted.engine.smtp.resume()
        posted.engine.smtp.drain(True)
        assert "another" in (await posted.post(LETTER))[1]["what"]
        posted.engine.smtp.drain(False)
        posted.engine.floor.free = lambda folder: 0
        assert (await posted.post(LETTER))[0] == 503
        told = "\n".join(await posted.refused())
        assert "http 127.0.0.1 as shop: too many recipients: the limit of the login for recipients" in told
        assert "http 127.0.0.1 as shop: not taking mail: " in told


async def test_nobody_has_all_the_places(posted: Posting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "PLACES", 8)
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield LETTER
        await gate.wait()

    async def post() -> int:
        headers = AS_IT_IS | {"Authorization": f"Bearer {SECRET}"}
        async with posted.session.post(posted.url, data=slow(), headers=headers) as answer:
            return answer.status

    waiting = [asyncio.create_task(post()) for _ in range(2)]
    await until(lambda: posted.engine.counter._places.total() == 2)
    status, told = await posted.post(LETTER)
    assert (status, told["what"]) == (429, "you are posting 2 messages already")
    gate.set()
    assert await asyncio.gather(*waiting) == [202, 202]
    assert (await posted.post(LETTER))[0] == 202


async def test_a_body_that_does_not_come_is_not_waited_for(posted: Posting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "BODY_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", posted.engine.http.addresses[0].port)
    writer.write(
        b"POST /v1/messages HTTP/1.1\r\nHost: relay\r\nContent-Type: message/rfc822\r\nContent-Length: 100\r\n"
        b"Authorization: Bearer " + SECRET.encode() + b"\r\n\r\nFrom: "
    )
    answer = await asyncio.wait_for(reader.readline(), 30)
    assert b" 408 " in answer
    writer.close()
    await until(lambda: not posted.engine.counter._places)


async def test_a_head_that_does_not_come_is_not_waited_for(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.intake.http.server.HEAD_SECONDS", 0.1)
    async with posting(internet, clock, tmp_path, here) as posted:
        reader, writer = await asyncio.open_connection("127.0.0.1", posted.engine.http.addresses[0].port)
        writer.write(b"POST /v1/mess")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        await until(lambda: not posted.engine.http._here)


async def test_of_too_many_connections_the_last_is_ended(posted: Posting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.intake.http.server.MOST", 4)
    port = posted.engine.http.addresses[0].port
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await until(lambda: posted.engine.http._here.total() == 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises((ConnectionError, AssertionError)):
        assert await asyncio.wait_for(reader.read(), 30)
    for _, each in (*held, (reader, writer)):
        each.close()
    await until(lambda: not posted.engine.http._here)
    assert (await posted.post(LETTER))[0] == 202


async def test_no_engine_starts_with_tokens_that_others_may_read(
    internet: Internet, clock: FakeClock, tmp_path: Path, here: Http, tokens: Path
) -> None:
    tokens.chmod(0o640)
    with pytest.raises(CannotStart, match=r"intake\.http\.tokens: .* may be read by others; chmod 0600 it"):
        async with posting(internet, clock, tmp_path, here):
            pass


async def test_at_the_control_socket_whoever_may_act_posts_as_anybody_and_the_log_says_who(tmp_path: Path) -> None:
    async with Internet(clock=SystemClock()) as internet:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with serving(internet.nameserver, internet.port) as relay:

            async def curl(socket: Path, *words: str) -> tuple[int, dict[str, Any]]:
                connector = aiohttp.UnixConnector(str(socket))
                headers = dict(word.split(": ") for word in words) or AS_IT_IS
                async with (
                    aiohttp.ClientSession(connector=connector) as session,
                    session.post("http://relay/v1/messages", data=LETTER, headers=headers) as answer,
                ):
                    return answer.status, await answer.json()

            assert await curl(relay.control_socket) == (202, {"message": 1})
            assert (await curl(relay.control_socket, "Content-Type: text/html"))[0] == 415
            assert (await curl(relay.control_socket.with_name("control-view.sock")))[0] == 403
            await exchange.wait_for(1)
            await until(lambda: "status=sent" in relay.output.read_text())
            assert ": 1: client=unknown[unix uid " in relay.output.read_text()
        assert exchange.delivered[0].sender == "web@shop.example"
