"""What a client sends, as a session reads it: in order, with the end told as a lost connection, and what came early.

asyncio's reader has no public way to ask what has come and was not read yet, nor to let go of it: that is done here,
and nowhere else.
"""

import asyncio


class Stream:
    """The reader as aiosmtpd uses it, but with the end of the stream told as what it is: a lost connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Read up to a separator and with it. Raises ConnectionResetError, LimitOverrunError."""
        try:
            return await self._reader.readuntil(separator)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the client has gone") from None

    async def readexactly(self, octets: int) -> bytes:
        """Read so many octets. Raises ConnectionResetError."""
        try:
            return await self._reader.readexactly(octets)
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the client has gone") from None

    async def read(self, octets: int) -> bytes:
        """Read at most so many octets."""
        return await self._reader.read(octets)

    async def came_early(self) -> int:
        """How many octets have come that nobody was to send yet (RFC 2920 3.1).

        What lies in the socket counts too: the loop is given two turns in which to read it, one to find that there is
        something and one to fetch it. Who waits for the reply, as it must, cannot have sent anything in them.
        """
        for _ in range(2):
            if self._ahead():
                break
            await asyncio.sleep(0)
        return self._ahead()

    def go_over(self, transport: asyncio.Transport) -> None:
        """What is read from now on comes through another transport."""
        self._reader._transport = transport  # type: ignore[attr-defined]  # noqa: SLF001 - the library's way, too

    def discard(self) -> int:
        """Throw away what has come and was not read yet; give how many octets."""
        octets = self._ahead()
        self._reader._buffer.clear()  # type: ignore[attr-defined]  # noqa: SLF001
        self._reader._maybe_resume_transport()  # type: ignore[attr-defined]  # noqa: SLF001
        return octets

    def _ahead(self) -> int:
        return len(self._reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001
