"""The way to the database that can be torn: what is held back comes late, and what is cut ends at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.nodes.way import Way

A_WHILE = 0.2  # seconds in which something would have come


@asynccontextmanager
async def way_to_an_echo() -> AsyncIterator[Way]:
    """A way to somebody who says everything again."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Way(server.sockets[0].getsockname()[1]) as way:
        yield way


class Caller:
    """Somebody at the near end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hears(self, seconds: float = 10.0) -> bytes:
        """What comes within so many seconds; b"": the end. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            return await self.reader.read(1000)


@asynccontextmanager
async def caller(way: Way) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_what_is_said_comes_through_and_so_does_the_end() -> None:
    async with way_to_an_echo() as way, caller(way) as ann:
        ann.writer.write(b"hello")
        assert await ann.hears() == b"hello"
        ann.writer.write_eof()
        assert await ann.hears() == b""


async def test_on_a_way_that_is_parted_nobody_hears_anything_until_it_is_mended_and_then_all() -> None:
    async with way_to_an_echo() as way, caller(way) as ann:
        way.part()
        ann.writer.write(b"late")
        async with caller(way) as bob:
            bob.writer.write(b"as well")
            for one in (ann, bob):
                with pytest.raises(TimeoutError):
                    await one.hears(A_WHILE)
            way.mend()
            assert await ann.hears() == b"late"
            assert await bob.hears() == b"as well"


async def test_a_way_that_is_cut_ends_what_is_connected_and_whoever_comes_until_it_is_mended() -> None:
    async with way_to_an_echo() as way, caller(way) as ann:
        ann.writer.write(b"hello")
        assert await ann.hears() == b"hello"
        way.cut()
        assert await ann.hears() == b""
        async with caller(way) as refused:
            assert await refused.hears() == b""
        way.mend()
        async with caller(way) as bob:
            bob.writer.write(b"hello again")
            assert await bob.hears() == b"hello again"
