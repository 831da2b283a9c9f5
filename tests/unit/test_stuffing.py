"""Content that goes out in blocks is the same on the wire as content that goes out whole, and is what was written."""

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.message import NewMessage
from engine.queue.content import BLOCK, Content
from engine.queue.errors import NoSuchMessage, QueueError
from engine.queue.sqlite.bodies import Body
from engine.queue.sqlite.store import FILE, SqliteQueue
from engine.smtpclient.stuffing import Stuffing
from tests.clock import FakeClock

TEXTS = st.lists(st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"a", b".."]), max_size=30).map(b"".join)


def whole(content: bytes) -> bytes:
    """RFC 5321 4.5.2, at one go."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


@given(TEXTS, st.lists(st.integers(0, 7), max_size=30))
def test_wherever_a_content_is_cut_its_dots_are_doubled_alike(content: bytes, sizes: list[int]) -> None:
    stuffed, rest, sent = Stuffing(), content, b""
    for size in sizes:
        sent += stuffed(rest[:size])
        rest = rest[size:]
    assert sent + stuffed(rest) == whole(content)


def test_each_cut_in_the_middle_of_a_line_end_and_its_dot() -> None:
    content = b".a\r\n.\r\n..\r\n.b"
    for cut in range(len(content) + 1):
        stuffed = Stuffing()
        assert stuffed(content[:cut]) + stuffed(content[cut:]) == whole(content)
    one_by_one = Stuffing()
    assert b"".join(one_by_one(bytes([octet])) for octet in content) == whole(content)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    queue = SqliteQueue(tmp_path, FakeClock())
    await queue.open()
    yield queue
    await queue.close()


def of(content: bytes) -> NewMessage:
    return NewMessage(sender="a@example.com", recipients=("b@example.org",), content=content, origin="test")


async def read(content: Content) -> list[bytes]:
    return [block async for block in content.blocks()]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17])
async def test_what_is_read_in_blocks_is_what_was_written(queue: SqliteQueue, size: int) -> None:
    written = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    number = await queue.arrivals.enqueue(of(written[:size]))
    content = await queue.claims.open_content(number)
    blocks = await read(content)
    assert content.size == size
    assert b"".join(blocks) == written[:size] == await queue.claims.content(number)
    assert max(map(len, blocks)) <= BLOCK
    assert all(blocks[:-1])


async def test_no_snapshot_is_kept_while_a_slow_peer_reads(queue: SqliteQueue, tmp_path: Path) -> None:
    number = await queue.arrivals.enqueue(of(b"x" * (3 * BLOCK)))
    blocks = (await queue.claims.open_content(number)).blocks()
    await anext(blocks)
    await anext(blocks)
    for _ in range(5):
        await queue.arrivals.enqueue(of(b"y" * 100_000))
    with sqlite3.connect(tmp_path / FILE) as other:
        busy, logged, copied = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    other.close()
    assert (busy, logged) == (0, copied)
    await blocks.aclose()  # type: ignore[attr-defined]


async def test_a_damaged_content_is_found_out_before_its_end(queue: SqliteQueue, tmp_path: Path) -> None:
    small, large = (
        await queue.arrivals.enqueue(of(b"x" * 100)),
        await queue.arrivals.enqueue(of(b"x" * (2 * BLOCK + 5))),
    )
    gone, short = await queue.arrivals.enqueue(of(b"x" * (2 * BLOCK))), await queue.arrivals.enqueue(of(b"x" * 100))
    kept = await queue.claims.open_content(gone)
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("UPDATE body SET content = zeroblob(100) WHERE message = ?", (small,))
        other.execute("UPDATE body SET sha256 = ? WHERE message = ?", (hashlib.sha256(b"").digest(), large))
        other.execute("UPDATE body SET content = x'00' WHERE message = ?", (short,))
        other.execute("DELETE FROM body WHERE message = ?", (gone,))
    other.close()
    with pytest.raises(QueueError, match=f"body of message {small} is damaged"):
        await queue.claims.open_content(small)
    with pytest.raises(QueueError, match=f"body of message {short} is damaged"):
        await queue.claims.open_content(short)
    blocks = (await queue.claims.open_content(large)).blocks()
    assert [len(await anext(blocks)) for _ in range(2)] == [BLOCK, BLOCK]
    with pytest.raises(QueueError, match=f"body of message {large} is damaged"):
        await anext(blocks)  # the last
    with pytest.raises(QueueError, match="missing"):
        await queue.claims.open_content(gone)
    with pytest.raises(QueueError):
        await read(kept)
    with pytest.raises(NoSuchMessage):
        await queue.claims.open_content(12345)
    assert Body(1, BLOCK).size == 0
