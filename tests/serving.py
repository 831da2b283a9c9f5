"""A relay as its users run it: `smarthost serve` in a process of its own, with a settings file."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from engine.control.client import Client, EngineUnreachable

SMARTHOST = Path(sys.executable).with_name("smarthost")


_CLAIMS = "127.255.255.254"  # where a port is bound that belongs to somebody
_claimed: list[socket.socket] = []


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on, and nobody else is given while this process lives.

    It is none of those the kernel gives to clients, and whoever has it from here holds it on an address nobody uses:
    so no other process of tests comes by it, even while nobody listens there.
    """
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        claim = socket.socket()
        try:
            claim.bind((_CLAIMS, port))
            with socket.socket() as probe:
                probe.bind((address, port))
        except OSError:
            claim.close()
        else:
            _claimed.append(claim)
            return port
    raise AssertionError(f"no port is free on {address}")


async def listening(port: int, address: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections there."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def until_listening(*ports: int, address: str = "127.0.0.1") -> None:
    """Wait until somebody takes connections at all of these."""
    async with asyncio.timeout(60):
        for port in ports:
            while not await listening(port, address):
                await asyncio.sleep(0.05)


class Served:
    """A relay's process, its settings and the way to ask it."""

    def __init__(
        self, folder: Path, nameserver: str, delivery_port: int, extra: str = "", under: Sequence[str] = ()
    ) -> None:
        self.under = tuple(under)
        self.spool = folder / "spool"
        self.port = free_port()
        self.settings = folder / "smarthost.toml"
        self.output = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings.write_text(
            f"""
hostname = "relay.example.net"
spool = "{self.spool}"
[intake]
min_free = "0"
[intake.smtp]
listen = ["127.0.0.1:{self.port}"]
[dns]
nameservers = ["{nameserver}"]
[delivery]
port = {delivery_port}
loopback_exchanges = true
check_interval = "1s"
{extra}
"""
        )

    @property
    def control_socket(self) -> Path:
        return self.spool / "control.sock"

    def client(self) -> Client:
        return Client(self.control_socket)

    async def start(self) -> None:
        """Start the process and wait until it takes mail."""
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.under, SMARTHOST, "--config", self.settings, "serve"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        async with asyncio.timeout(60):
            while not await self.answers():
                assert self.process.poll() is None, self.output.read_text()
                await asyncio.sleep(0.05)

    async def answers(self) -> bool:
        """Whether both doors are open."""
        if not await listening(self.port):
            return False
        try:
            async with self.client() as client:
                await client.health()
        except EngineUnreachable:
            return False
        return True

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 40) -> int:
        """Ask it to drain and stop; give its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of smarthost against this relay."""
        return subprocess.run(
            [SMARTHOST, "--config", self.settings, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "80"},
        )


@asynccontextmanager
async def serving(
    nameserver: str, delivery_port: int, extra: str = "", under: Sequence[str] = ()
) -> AsyncIterator[Served]:
    """Serve until the block ends, `under` another program if one is given.

    The folder is short-named: a Unix socket's path may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        served = Served(Path(folder), nameserver, delivery_port, extra, under)
        await served.start()
        try:
            yield served
        finally:
            if served.process is not None and served.process.poll() is None:
                served.process.kill()
                served.process.wait()
