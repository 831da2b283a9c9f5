"""What we sign is verified by OpenDKIM and by Mail::DKIM, which share no code with what signs it."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import DkimKey
from tests.interop.needs import needs, needs_perl_module, program
from tests.scenarios.test_82_dkim import LETTER, publish
from tests.serving import serving
from tests.smtp import smtp_client
from tests.unit.dkim_keys import ed25519, records, rsa2048, settings_of

SCRIPT = Path(__file__).with_name("verify_dkim.pl")
BODIES = {
    "plain": b"How are you?\r\n",
    "8bit": "Grüße, ".encode() + b"\xff\xfe raw\r\n",
    "empty": b"",
    "blank lines": b"\r\n\r\nHow \t are you? \t\r\n\r\n\r\n",
    "dots": b".\r\n..\r\n.dot\r\n",
    "long lines": b"x" * 900 + b" \r\n" + b"y" * 5000 + b"\r\n",
    "large": b"and so on, and so on\r\n" * 50_000,
}
FIELDS = (
    b"Subject:  folded\r\n\tand  more \r\n   of it\t\r\nList-Unsubscribe: <https://shop.example/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nREFERENCES: <1@a>\r\n <2@b>\r\nX-Other:\r\n"
)
OBSOLETE = b"In-Reply-To \t: <1@a>\r\n"  # RFC 5322 4.5; of a message with such a field OpenDKIM says nothing at all


@asynccontextmanager
async def signing(folder: Path, extra: bytes) -> AsyncIterator[tuple[Internet, tuple[DkimKey, ...]]]:
    """A relay that has signed a letter with each of the bodies, and its keys, which the DNS has."""
    keys = rsa2048(folder, "example.com"), ed25519(folder, "example.com")
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        publish(internet, *keys)
        async with serving(internet.nameserver, internet.port, settings_of(*keys)) as relay:
            asked = await asyncio.to_thread(relay.command, "dkim", "check")
            assert (asked.returncode, asked.stderr) == (0, "")
            assert asked.stdout.count("our key") == 2
            head = extra + LETTER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            async with smtp_client(relay.port, "127.0.0.1") as smtp:
                for body in BODIES.values():
                    await smtp.sendmail("ann@example.com", ["bob@example.org"], head + body)
            await internet.wait_for(len(BODIES))
        yield internet, keys


async def output(content: bytes, *command: str | Path) -> str:
    """What a program says of a message on its standard input."""
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    said, wrong = await process.communicate(content)
    assert process.returncode == 0, wrong.decode()
    return said.decode()


def changed(content: bytes) -> bytes:
    """The same with another body."""
    assert b"\r\n\r\n" in content
    return content.replace(b"\r\n\r\n", b"\r\n\r\nnot ", 1)


@needs("opendkim")
@pytest.mark.parametrize("extra", [b"", FIELDS], ids=["few fields", "many fields"])
async def test_opendkim_finds_every_signature_right(tmp_path: Path, extra: bytes) -> None:
    async with signing(tmp_path, extra) as (internet, keys):
        public, settings = tmp_path / "public", tmp_path / "opendkim.conf"
        public.write_text("".join(f"{name} {record}\n" for name, record in records(*keys).items()))
        settings.write_text(f"Mode v\nSyslog no\nTestPublicKeys {public}\n")

        async def verified(content: bytes) -> list[tuple[str, ...]]:
            said = await output(content, program("opendkim"), "-x", settings, "-vv", "-t", "-")
            return re.findall(r"dkim=(\w+) [^;]*header\.a=([\w-]+)", said)

        for delivery in internet.delivered:
            assert await verified(delivery.content) == [("pass", "rsa-sha256"), ("pass", "ed25519-sha256")]
            told = await verified(changed(delivery.content))
            assert told == [("fail", "rsa-sha256"), ("fail", "ed25519-sha256")]


@needs_perl_module("Mail::DKIM::Verifier", "libmail-dkim-perl")
@pytest.mark.parametrize("extra", [b"", FIELDS + OBSOLETE], ids=["few fields", "many fields"])
async def test_mail_dkim_finds_every_signature_right_by_what_the_dns_has(tmp_path: Path, extra: bytes) -> None:
    async with signing(tmp_path, extra) as (internet, _):
        address, _, port = internet.nameserver.rpartition(":")

        async def verified(content: bytes) -> list[str]:
            return (await output(content, program("perl"), SCRIPT, address, port)).splitlines()

        for delivery in internet.delivered:
            rsa, ed = await verified(delivery.content)
            assert rsa == "rsa._domainkey.example.com rsa-sha256 pass"
            # Debian 12 has one that does not know it yet (RFC 8463), and must do as if it were not there.
            assert ed.removeprefix("ed._domainkey.example.com ed25519-sha256 ") in (
                "pass",
                "invalid (unsupported algorithm ed25519-sha256)",
            )
            assert not any(line.endswith(" pass") for line in await verified(changed(delivery.content)))
