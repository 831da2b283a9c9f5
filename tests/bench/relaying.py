"""How fast mail passes through: 4 KiB messages from smtp-source over 20 sessions to smtp-sink, in one run

    direct      smtp-source to smtp-sink, no relay between them: what the tools themselves take
    smarthost   through `smarthost serve`, which has as many connections to one destination by default as Postfix has
    postgresql  the same with its queue in a PostgreSQL on this machine, which syncs (where it is installed)
    postfix     through a Postfix of its own (as root, where it is installed)

each in turn, several rounds. Absolute figures depend on the machine; the ratios of the medians are what counts.

    uv run python -m tests.bench.relaying [MESSAGES] [ROUNDS]
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from tests import postgres
from tests.interop.needs import program
from tests.serving import free_port, serving

SINK = "127.0.0.9"
_SYNCS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example.net
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
mynetworks = 127.0.0.0/8
relayhost = [{sink}]:{port}
smtp_host_lookup = native
smtpd_peername_lookup = no
smtp_tls_security_level = none
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""


async def timed(door: int, sink_port: int, messages: int) -> float:
    """Seconds from the first message handed in until the sink has the last."""
    sink = await asyncio.create_subprocess_exec(
        program("smtp-sink"), "-u", "root", "-M", str(messages), f"{SINK}:{sink_port}", "1000",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    await asyncio.sleep(0.3)
    begin = time.perf_counter()
    source = await asyncio.create_subprocess_exec(
        program("smtp-source"), "-N", "-d", "-s", "20", "-m", str(messages), "-l", "4096",
        "-f", "ann@source.example", "-t", "bob@sink.example",
        f"{'127.0.0.1' if door != sink_port else SINK}:{door}",
    )  # fmt: skip
    try:
        async with asyncio.timeout(300):
            status = await source.wait()
            # The sink leaves as soon as it has the last message; a source that speaks to it directly notices.
            assert status == 0 or door == sink_port
            await sink.wait()
    finally:
        for process in (source, sink):
            if process.returncode is None:
                process.kill()
                await process.wait()
    return time.perf_counter() - begin


@asynccontextmanager
async def postfix(sink_port: int, settings: str = "") -> AsyncIterator[int]:
    """Run a Postfix with a queue of its own, and with these settings as well; give the port it listens on."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "queue").mkdir()
        (folder / "data").mkdir()
        subprocess.run(["chown", "postfix", folder / "data"], check=True)
        (folder / "main.cf").write_text(_MAIN.format(folder=folder, sink=SINK, port=sink_port) + settings)
        (folder / "master.cf").write_text(_MASTER.format(port=port))

        def control(verb: str) -> None:
            subprocess.run([program("postfix"), "-c", folder, verb], check=True, capture_output=True)

        control("start")
        try:
            yield port
        finally:
            control("stop")


async def main(messages: int, rounds: int) -> None:
    """Run the rounds and say what came out."""
    sink_port = free_port(SINK)
    took: dict[str, list[float]] = {}
    async with Internet(clock=SystemClock()) as internet:
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", SINK)

        async def through_smarthost() -> float:
            async with serving(internet.nameserver, sink_port) as relay:
                return await timed(relay.port, sink_port, messages)

        async def through_postgresql() -> float:
            server = await asyncio.to_thread(postgres.Server, _SYNCS, on_disk=True)
            try:
                store = f'[queue]\nstore = "{server.dsn("postgres")}"'
                async with serving(internet.nameserver, sink_port, store) as relay:
                    return await timed(relay.port, sink_port, messages)
            finally:
                await asyncio.to_thread(server.end)

        async def through_postfix() -> float:
            async with postfix(sink_port) as door:
                return await timed(door, sink_port, messages)

        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "direct": lambda: timed(sink_port, sink_port, messages),
            "smarthost": through_smarthost,
        }
        if not postgres.why_not():
            ways["postgresql"] = through_postgresql
        if os.getuid() == 0 and program("postfix"):
            ways["postfix"] = through_postfix
        for _ in range(rounds):
            for name, way in ways.items():
                took.setdefault(name, []).append(await way())
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in took.items():
        spread = " ".join(f"{each:.2f}" for each in seconds)
        ratio = medians["smarthost"] / medians[name]
        say(f"{name:10} {messages / medians[name]:7.0f} messages/s   smarthost takes {ratio:.2f} x   [{spread} s]")


def say(line: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(arguments + [2000, 3][len(arguments) :])))
