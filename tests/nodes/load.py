"""Steady load: senders of ours, who know of each message what it was answered, and smtp-source beside them."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiosmtplib

from tests.interop.needs import program
from tests.nodes.books import Books
from tests.nodes.node import Node
from tests.nodes.peers import DOMAINS
from tests.smtp import smtp_client

SENDER = "ann@source.example"
PATIENCE = 10.0  # seconds that a sender waits for an answer
COMES_AGAIN = 0.3  # seconds until one comes again who found nobody, or was refused
SESSIONS = 3  # at each node
BURST = 10  # messages of one run of smtp-source

_BODY = b"x" * 2000 + b"\r\n"


class Load:
    """Hands so many messages a second in all to nodes, evenly, while the context is entered.

    Each recipient is asked for once. At the end who waits for an answer has it, or has waited long enough.
    With smtp-source half of them come from it, in bursts: where one ends well, all of it was answered with 250; where
    not, none of it is known.
    """

    def __init__(self, nodes: Sequence[Node], books: Books, rate: float, *, with_source: bool = False) -> None:
        self._nodes = nodes
        self._books = books
        self._numbers = itertools.count(1)
        self._with_source = with_source and bool(program("smtp-source"))
        self._rate = rate / len(nodes) / (2 if self._with_source else 1)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Self:
        for node in self._nodes:
            work = [self._send(node) for _ in range(SESSIONS)]
            if self._with_source:
                work.append(self._burst(node))
            self._tasks += [asyncio.create_task(each) for each in work]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for failed in results:
            if error is None and isinstance(failed, Exception):
                raise failed

    # -- one by one -------------------------------------------------------------------------------------------------

    async def _send(self, node: Node) -> None:
        """A session at a time, with a message when it is its turn."""
        pause = SESSIONS / self._rate
        due = time.monotonic()
        while not self._stopping:
            try:
                async with smtp_client(node.port, timeout=PATIENCE) as smtp:
                    while not self._stopping:
                        due = max(due + pause, time.monotonic() - pause)  # what was missed is not made good for
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                        await self._hand_in(smtp, node.name)
            except (aiosmtplib.SMTPException, OSError):
                await asyncio.sleep(COMES_AGAIN)

    async def _hand_in(self, smtp: aiosmtplib.SMTP, node: str) -> None:
        """One message, and its answer into the books. Raises what ends the session."""
        number = next(self._numbers)
        recipient = f"n{number}@{DOMAINS[number % len(DOMAINS)]}"
        head = f"From: {SENDER}\r\nTo: {recipient}\r\nSubject: {number}\r\n\r\n".encode()
        try:
            await smtp.sendmail(SENDER, [recipient], head + _BODY)
        except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused):
            self._books.refused += 1
            raise
        except (aiosmtplib.SMTPException, OSError):
            self._books.unknown.add(recipient)
            raise
        self._books.yes([recipient], time.time(), node)

    # -- smtp-source ------------------------------------------------------------------------------------------------

    async def _burst(self, node: Node) -> None:
        due = time.monotonic()
        pause = BURST / self._rate
        while not self._stopping:
            number = next(self._numbers)
            base = f"s{number}@{DOMAINS[number % len(DOMAINS)]}"
            # It numbers them itself: 1s17@d5.example, 2s17@...
            recipients = [f"{place}{base}" for place in range(1, BURST + 1)]
            if await _source(node.port, base):
                self._books.yes(recipients, time.time(), node.name)
            else:
                self._books.unknown.update(recipients)
            due = max(due + pause, time.monotonic() - pause)
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _source(port: int, recipient: str) -> bool:
    """One run; whether all of it was answered with 250."""
    process = await asyncio.create_subprocess_exec(
        program("smtp-source"), "-N", "-d", "-s", "1", "-m", f"{BURST}", "-l", "2000",
        "-f", SENDER, "-t", recipient, f"127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            return await process.wait() == 0
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
