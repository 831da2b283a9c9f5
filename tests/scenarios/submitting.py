"""Submission for scenarios: an intake with a certificate and users, and a client that says exactly what it is told."""

import asyncio
import ssl
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trustme

from engine.intake.floor import DiskFloor
from engine.intake.smtp.listener import SmtpIntake
from engine.intake.smtp.users import UsersFile
from engine.settings.kinds import Network
from engine.settings.settings import Intake, Limits, Listen, Settings, Smtp, Submission
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals

ANYWHERE = (Listen("127.0.0.1", 0),)
PATIENCE = 60.0
LETTER = b"From: ann@example.com\r\nSubject: hello\r\n\r\nbody\r\n"


class Keys:
    """A certificate for localhost, its key, who issued it, users (ann and bob), and a client's TLS that trusts it.

    Both may send as whoever is at example.com.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        self.certificate, self.key, self.users = folder / "cert.pem", folder / "key.pem", folder / "users"
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)
        self.file = UsersFile(self.users)
        self.file.set("ann", "secret", ["*@example.com"])
        self.file.set("bob", "other", ["*@example.com"])
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)

    def submission(self, **changed: Any) -> Submission:
        """Settings of [intake.submission]."""
        given = {"certificate": self.certificate, "key": self.key, "users": self.users}
        return Submission(**{"listen": ANYWHERE, "listen_tls": ANYWHERE, **given, **changed})


@contextmanager
def made_keys() -> Iterator[Keys]:
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        yield Keys(Path(folder))


@asynccontextmanager
async def submission(
    keys: Keys,
    queue: FakeArrivals,
    *,
    clock: FakeClock | None = None,
    floor: DiskFloor | None = None,
    limits: Limits | None = None,
    proxies: tuple[Network, ...] = (),
    **rules: Any,
) -> AsyncIterator[SmtpIntake]:
    """An intake with all three doors."""
    settings = Settings(
        hostname="relay.example",
        intake=Intake(
            smtp=Smtp(**{"listen": ANYWHERE, "proxy_networks": proxies, **rules}),
            submission=keys.submission(proxy_networks=proxies),
            limits=limits or Limits(),
        ),
    )
    server = SmtpIntake(queue, settings, clock or FakeClock(), floor=floor)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE):
            yield server
    finally:
        await server.stop(0.5)


class Talk:
    """A client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def lines(self) -> list[str]:
        """One reply, line by line."""
        found: list[str] = []
        while True:
            line = (await self.reader.readline()).decode()
            found.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return found

    async def reply(self) -> str:
        return (await self.lines())[-1]

    async def say(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return await self.reply()

    async def ehlo(self) -> list[str]:
        """What is offered."""
        self.send(b"EHLO client.example\r\n")
        return [line[4:] for line in await self.lines()][1:]

    async def start_tls(self, keys: Keys) -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        await self.writer.start_tls(keys.client, server_hostname="localhost")

    async def log_in(self, name: str = "ann", password: str = "secret") -> str:
        return await self.say(f"AUTH PLAIN {plain(name, password)}")

    async def mail(self, recipient: str = "bob@example.net") -> str:
        """Send a message; give the last reply."""
        for line in ("MAIL FROM:<ann@example.com>", f"RCPT TO:<{recipient}>", "DATA"):
            reply = await self.say(line)
            if reply[0] not in "23":
                return reply
        self.send(LETTER + b".\r\n")
        return await self.reply()


def plain(name: str, password: str, identity: str = "") -> str:
    """The initial response of PLAIN."""
    return b64encode(f"{identity}\0{name}\0{password}".encode()).decode()


@asynccontextmanager
async def talk(door: Listen, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> AsyncIterator[Talk]:
    """Connect and read the greeting."""
    reader, writer = await asyncio.open_connection(
        door.host, door.port, ssl=tls, server_hostname="localhost" if tls else None, local_addr=(source, 0)
    )
    client = Talk(reader, writer)
    try:
        yield client
    finally:
        writer.transport.abort()


@asynccontextmanager
async def secured(door: Listen, keys: Keys, *, source: str = "127.0.0.1") -> AsyncIterator[Talk]:
    """Connect to the door that has STARTTLS, go over to TLS, and greet."""
    async with talk(door, source=source) as client:
        assert (await client.reply()).startswith("220")
        await client.ehlo()
        await client.start_tls(keys)
        await client.ehlo()
        yield client
