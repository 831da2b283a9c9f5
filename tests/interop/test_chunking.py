"""BDAT with others: Postfix takes ours, or is not sent any; and Perl's Net::SMTP sends it to us."""

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
from tests.interop.needs import needs, needs_perl_module, program
from tests.interop.postfix import needs_root, postfix
from tests.interop.test_postfix_tools import until_empty
from tests.serving import Served, free_port, serving
from tests.smtp import smtp_client

ADDRESS = "127.0.0.9"
BODY = b".\r\n..two\r\nQUIT\r\n\xc3\xbc" + b"x" * 900 + b"\r\n"
LARGE = BODY + b".\r\n" * 700_000

_SEND = r"""
use Net::SMTP;
my $smtp = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], Timeout => 20) or die "no connection";
defined $smtp->supports("CHUNKING") or die "no CHUNKING";
${*$smtp}{net_smtp_chunking} = 1;    # by itself it does so only with BINARYMIME
for my $number (1 .. 5) {
    $smtp->mail("ann\@example.com") or die;
    $smtp->to("bob\@example.org") or die;
    $smtp->bdat("Subject: $number\r\n\r\n.\r\n") or die $smtp->message;
    $smtp->bdat("QUIT\r\n" x 10_000) or die $smtp->message;
    $smtp->bdatlast("the end") or die $smtp->message;
}
$smtp->quit or die;
"""


@asynccontextmanager
async def through_postfix(folder: Path, more: str = "") -> AsyncIterator[tuple[Internet, Served, Path]]:
    """A relay that may send BDAT, behind it a Postfix, behind that an exchange; and the log of the Postfix."""
    port = free_port(ADDRESS)
    folder.chmod(0o755)
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("end.example", mx=[(10, "mx.end.example", Healthy())])
        last = internet.exchange("mx.end.example")
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", ADDRESS)
        settings = f"""
relay_domains = sink.example
relay_transport = smtp:[{last.address}]:{last.port}
{more}
"""
        with postfix(ADDRESS, port, settings) as log:
            extra = f"""
chunking = "offered"
[[route]]
domain = "example.com"
host = "mx.example.com"
port = {internet.port}
"""
            async with serving(internet.nameserver, port, extra) as relay:
                yield internet, relay, log


async def send(relay: Served, *subjects: str, body: bytes = BODY) -> None:
    async with smtp_client(relay.port, "127.0.0.1") as smtp:
        for subject in subjects:
            letter = b"From: ann@example.com\r\nSubject: " + subject.encode() + b"\r\n\r\n" + body
            await smtp.sendmail("ann@example.com", ["bob@sink.example"], letter)
    await until_empty(relay.control_socket)


async def counted(log: Path, verb: str) -> int:
    """How many of a command Postfix has taken, once all its sessions are over."""
    async with asyncio.timeout(20):
        while (text := log.read_text()).count(": connect from") > text.count(": disconnect from"):
            await asyncio.sleep(0.05)
    return sum(int(number) for number in re.findall(rf"disconnect from .* {verb}=(?:\d+/)?(\d+)", text))


@needs("postfix")
@needs_root
@pytest.mark.parametrize(
    ("settings", "bdat", "data"),
    [
        ("", 21, 0),
        ("smtpd_discard_ehlo_keywords = pipelining", 21, 0),
        ("smtpd_discard_ehlo_keywords = chunking", 0, 21),
    ],
)
async def test_postfix_has_what_it_offers_to_take(tmp_path: Path, settings: str, bdat: int, data: int) -> None:
    async with through_postfix(tmp_path, settings) as (internet, relay, log):
        await send(relay, *map(str, range(20)))
        await send(relay, "large", body=LARGE)
        await internet.wait_for(21)
        assert (await counted(log, "bdat"), await counted(log, "data")) == (bdat, data)
    for delivery in internet.delivered:
        body = LARGE if b"Subject: large" in delivery.content else BODY
        assert delivery.content.partition(b"\r\n\r\n")[2] == body


@needs("postfix")
@needs_root
async def test_a_message_that_postfix_refuses_with_bdat_is_returned_and_the_next_goes(tmp_path: Path) -> None:
    checks = tmp_path / "checks"
    checks.write_text("/^Subject: bad/ REJECT not this one\n")
    settings = f"header_checks = regexp:{checks}\nmessage_size_limit = 1000000"
    async with through_postfix(tmp_path, settings) as (internet, relay, log):
        await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
        await send(relay, "good", "bad", "good too")
        await internet.wait_for(3)
        assert await counted(log, "bdat") == 3
    (returned,) = [delivery for delivery in internet.delivered if delivery.host == "mx.example.com"]
    assert b"550 5.7.1 not this one" in returned.content
    taken = b"".join(delivery.content for delivery in internet.delivered if delivery is not returned)
    assert re.findall(rb"Subject: (.*)\r\n", taken) == [b"good", b"good too"]


@needs("perl")
@needs_perl_module("Net::SMTP", "perl-modules")
async def test_what_net_smtp_sends_in_chunks_is_delivered_as_it_was() -> None:
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with serving(internet.nameserver, internet.port) as relay:
            sent = await asyncio.to_thread(
                subprocess.run,
                [program("perl"), "-e", _SEND, str(relay.port)],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert (sent.returncode, sent.stderr) == (0, "")
            await internet.wait_for(5)
        for delivery in internet.delivered:
            assert delivery.content.partition(b"\r\n\r\n")[2] == b".\r\n" + b"QUIT\r\n" * 10_000 + b"the end\r\n"
