"""The way to the database that can be torn: what is held back comes late, and what is cut ends at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.nodes.way import Way
from tests.waiting import PATIENCE, until


@asynccontextmanager
async def way_to_an_echo(far_ends: list[asyncio.StreamWriter] | None = None) -> AsyncIterator[Way]:
    """A way to somebody who says everything again; the far ends of its connections are noted."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if far_ends is not None:
            far_ends.append(writer)
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

    async def hears(self) -> bytes:
        """What comes; b"": the end. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
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
    far_ends: list[asyncio.StreamWriter] = []
    async with way_to_an_echo(far_ends) as way, caller(way) as ann:
        ann.writer.write(b"hello")
        assert await ann.hears() == b"hello"
        (for_ann,) = far_ends
        async with caller(way) as bob:
            bob.writer.write(b"hello")
            assert await bob.hears() == b"hello"
            way.part()
            for_ann.write(b"news")
            bob.writer.write(b"late")
            async with caller(way) as newcomer:
                newcomer.writer.write(b"as well")
                hearing = [asyncio.ensure_future(one.hears()) for one in (ann, bob, newcomer)]
                await until(lambda: way.held == 3)
                assert not any(each.done() for each in hearing)
                way.mend()
                assert await asyncio.gather(*hearing) == [b"news", b"late", b"as well"]


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
