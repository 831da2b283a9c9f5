"""The way from a node to its database: a TCP proxy whose connections can be cut, and kept cut."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.serving import free_port

_AT_ONCE = 64 * 1024  # bytes


class Way:
    """Leads from `port` to another on loopback while the context is entered.

    `part` keeps all that is on its way where it is, in both directions, as a network that is torn: nobody is told, and
    what was written before comes late, once the way is whole again. `cut` ends connections at once and refuses others,
    as a firewall does. `mend` ends either. `held` is how much is kept where it is: pieces of either direction, ends of
    connections, and connections that were begun.
    """

    def __init__(self, to_port: int) -> None:
        self.port = free_port()
        self._to_port = to_port
        self._is_whole = asyncio.Event()
        self._is_whole.set()
        self._refuses = False
        self.held = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    def part(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self._is_whole.clear()

    def cut(self) -> None:
        """End what is connected, and whoever comes."""
        self._refuses = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """Let everything through again."""
        self._refuses = False
        self._is_whole.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await asyncio.sleep(0)  # a transport that is aborted closes its socket at the loop's next turn

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._lead(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._until_whole()
            back, there = await asyncio.open_connection("127.0.0.1", self._to_port)
            self._open.add(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there))
                both.create_task(self._carry(back, writer))
        except OSError:
            pass  # nobody is there: the node is told by the end of its connection
        finally:
            for end in (writer, there):
                if end is not None:
                    self._open.discard(end)
                    end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction to its end, and say so at the other end."""
        with suppress(OSError):
            while data := await reader.read(_AT_ONCE):
                await self._until_whole()
                writer.write(data)
                await writer.drain()
        await self._until_whole()
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _until_whole(self) -> None:
        self.held += 1
        try:
            await self._is_whole.wait()
        finally:
            self.held -= 1
