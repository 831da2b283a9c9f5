"""Generated traffic: letters handed to a relay over SMTP at a given rate."""

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiosmtplib

from engine.sandbox.letters import Letter, Letters

_NAME = "localhost"  # in its greeting; without one the machine's name servers would be asked
_TIMEOUT = 30.0  # seconds for one command
_PAUSE = 1.0  # seconds before a lost connection is opened anew
_MOST_BEHIND = 2.0  # seconds that may be caught up with after a stall


class Traffic:
    """Sends letters to the relay at `host` and `port` while the context is entered, over one connection.

    `rate` is letters a second and may be changed; `count` ends it after so many. `sent` letters were answered with
    250, `refused` ones otherwise; `lost` counts connections that ended or could not be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        weights: Mapping[str, float],
        *,
        rate: float = 5.0,
        count: int | None = None,
        draw: random.Random | None = None,
    ) -> None:
        self.rate = rate
        self.sent = 0
        self.refused = 0
        self.lost = 0
        self._host = host
        self._port = port
        self._left = count
        self._letters = Letters(weights, draw)
        self._client: aiosmtplib.SMTP | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to send."""
        if self._task is None:
            self._stopping = False
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop sending, in the middle of a letter if need be."""
        task, self._task = self._task, None
        self._stopping = True
        while task and not task.done():
            # In Python 3.11 wait_for, which the client stands on, may lose a cancellation: ask until it is heard.
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)
        await self._hang_up()

    async def finished(self, seconds: float = 60.0) -> None:
        """Wait until `count` letters have been sent or refused. Raises TimeoutError."""
        if self._task:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._task)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stopping and (self._left is None or self.sent + self.refused < self._left):
            letter = self._letters.write()
            while not await self._sent(letter) and not self._stopping:
                self.lost += 1
                await self._hang_up()
                await asyncio.sleep(_PAUSE)
            due = max(due + 1.0 / max(self.rate, 0.01), loop.time() - _MOST_BEHIND)
            await asyncio.sleep(max(0.0, due - loop.time()))
        await self._hang_up()

    async def _sent(self, letter: Letter) -> bool:
        """Whether the relay answered, be it yes or no."""
        try:
            client = await self._connected()
            await client.mail(letter.sender, options=["BODY=8BITMIME"] if client.supports_extension("8bitmime") else [])
            for recipient in letter.recipients:
                await client.rcpt(recipient)
            await client.data(letter.content)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError) as error:
            if error.code == 421:
                return False
            self.refused += 1
            return await self._reset()
        except (aiosmtplib.SMTPException, OSError):
            return False
        self.sent += 1
        return True

    async def _reset(self) -> bool:
        try:
            if self._client:
                await self._client.rset()
        except (aiosmtplib.SMTPException, OSError):
            self.lost += 1
            await self._hang_up()
        return True

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._client is None or not self._client.is_connected:
            self._client = aiosmtplib.SMTP(
                hostname=self._host, port=self._port, timeout=_TIMEOUT, start_tls=False, local_hostname=_NAME
            )
            await self._client.connect()
            await self._client.ehlo()
        return self._client

    async def _hang_up(self) -> None:
        """Close without QUIT: after a cancellation the next reply would be a late one."""
        client, self._client = self._client, None
        if client:
            client.close()
        await asyncio.sleep(0)
