"""The demo: a relay's settings in the middle of a sandbox internet that sends and takes mail."""

import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from engine.base.threads import LoopThread
from engine.sandbox.internet import Internet
from engine.sandbox.traffic import Traffic
from engine.settings.settings import (
    Delivery,
    Dns,
    Intake,
    Listen,
    Nameserver,
    Retry,
    Settings,
    Smtp,
    Timeouts,
    TlsRules,
)

LETTERS_A_SECOND = 4.0
_STOP_SECONDS = 10.0


class Demo(Struct, frozen=True):
    """What a relay in the sandbox internet is started with: its settings, and where policy servers answer."""

    settings: Settings
    https_port: int


@contextmanager
def demo(rate: float = LETTERS_A_SECOND) -> Iterator[Demo]:
    """Give what starts a relay that lives in a sandbox internet, in a temporary spool, for as long as this lasts.

    Everything is on loopback. Letters arrive at `rate` a second from when the relay listens. Patience is short, so
    that retries, marks and bounces can be watched without waiting for hours.
    """
    with tempfile.TemporaryDirectory(prefix="smarthost-demo-") as folder:
        intake = _free_port()
        sandbox = LoopThread(lambda: _sandbox(intake, rate), name="sandbox")
        internet = sandbox.start()
        try:
            yield Demo(_settings(Path(folder), intake, internet), internet.policies.port)
        finally:
            sandbox.stop(_STOP_SECONDS)


@asynccontextmanager
async def _sandbox(intake: int, rate: float) -> AsyncIterator[Internet]:
    async with Internet() as internet:
        await internet.populate()
        async with Traffic("127.0.0.1", intake, internet.weights, rate=rate):
            yield internet


def _settings(folder: Path, intake: int, internet: Internet) -> Settings:
    host, _, port = internet.nameserver.rpartition(":")
    authority = folder / "authority.pem"
    authority.write_bytes(internet.certificates.authority_pem)
    return Settings(
        hostname="relay.demo.example",
        spool=folder,
        intake=Intake(smtp=Smtp(listen=(Listen("127.0.0.1", intake),))),
        dns=Dns(nameservers=(Nameserver(host, int(port)),), validating=True),
        tls=TlsRules(ca_file=authority),
        delivery=Delivery(
            port=internet.port,
            loopback_exchanges=True,
            check_interval=5.0,
            bad_mx_timeout=180.0,
            timeouts=Timeouts(connect=5, greeting=20, hello=20, mail=20, rcpt=20, data=20, reply=30, attempt=120),
        ),
        retry=Retry(schedule=(20.0, 40.0, 60.0, 120.0), give_up_after=900.0),
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
