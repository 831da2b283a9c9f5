"""24. Content is read and sent by block: memory holds a block of each message, and nothing damaged gets through."""

import asyncio
import sqlite3
import sys
from pathlib import Path

from engine.base.clock import SystemClock
from engine.model.message import NewMessage
from engine.queue.content import BLOCK
from engine.queue.sqlite.store import FILE, SqliteQueue
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Encrypted, Healthy, Slow
from tests import store
from tests.scenarios.relaying import LETTER, Relay

MIB = 1024 * 1024
COUNT = 16


def letter(size: int) -> bytes:
    """A content of so many bytes, with dots where lines begin."""
    line = b"." + b"x" * 76 + b"\r\n"
    return (LETTER + line * (size // len(line) + 1))[: size - 2] + b"\r\n"


async def test_a_large_message_arrives_as_it_was_written_in_clear_text_and_under_tls(
    internet: Internet, relay: Relay
) -> None:
    content = letter(3 * BLOCK + 1000)
    await internet.add("plain.example", mx=[(10, "mx.plain.example", Healthy())])
    await internet.add("secure.example", mx=[(10, "mx.secure.example", Encrypted())])
    await relay.enqueue(
        NewMessage(
            sender="a@example.com", recipients=("b@plain.example", "b@secure.example"), content=content, origin="test"
        )
    )
    await internet.wait_for(2)
    assert [delivery.content for delivery in internet.delivered] == [content, content]


@store.only("sqlite")
async def test_a_message_that_turns_out_to_be_damaged_on_its_way_is_held_and_never_ended(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    await relay.enqueue(
        NewMessage(sender="a@example.com", recipients=("b@example.org",), content=letter(2 * MIB), origin="test")
    )
    with sqlite3.connect(relay.spool / FILE) as other:
        other.execute("UPDATE body SET sha256 = zeroblob(32)")
    other.close()
    await relay.send("c@example.org", times=2)
    await relay.settled()
    await relay.later(60)
    assert exchange.messages == 2
    (entry,) = await relay.entries()
    assert (entry.recipient, entry.state, entry.attempts) == ("b@example.org", "held", 0)
    assert "is damaged" in entry.note
    assert relay.engine.mx.marks == ()
    assert await relay.events("deferred", "unreachable") == []
    assert [one.name for one in relay.engine.smarthost.limits_on("example.org")] == []


async def test_many_large_messages_at_a_time_take_the_memory_of_their_blocks(
    internet: Internet, tmp_path: Path
) -> None:
    """In a process of its own, so that what it takes can be told from what the exchange here takes."""
    size = 12 * MIB
    for number in range(COUNT):
        (exchange,) = await internet.add(f"d{number}.example", mx=[(10, f"mx.d{number}.example", Slow(0.3))])
        exchange._keep_bytes = 0
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    queue = SqliteQueue(spool, SystemClock())
    await queue.open()
    content = letter(size)
    for number in range(COUNT):
        recipient = f"b@d{number}.example"
        await queue.arrivals.enqueue(NewMessage(sender="", recipients=(recipient,), content=content, origin="test"))
    await queue.close()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.scenarios.sending_out", internet.nameserver, str(internet.port), str(spool),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(100):
        output, _ = await child.communicate()
    assert child.returncode == 0
    peak, connections = map(int, output.split())
    print(f"{COUNT} messages of {size // MIB} MiB, {connections} connections at a time: peak {peak} MiB")
    assert internet.messages == COUNT
    assert connections == COUNT
    assert peak < 140  # read whole, they took 334
