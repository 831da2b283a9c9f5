"""Waiting until something is so, in real time and with a bound: the machine may be busy."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0  # seconds; what takes longer does not happen


async def until(so: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something to become so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not so():
            await asyncio.sleep(0.005)


def hold_until(so: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something to become so where there is no loop, as beside a process. Raises TimeoutError."""
    ends = time.monotonic() + seconds
    while not so():
        if time.monotonic() > ends:
            raise TimeoutError
        time.sleep(0.005)


async def until_told(ask: Callable[[], Awaitable[T]], so: Callable[[T], bool] = bool, seconds: float = PATIENCE) -> T:
    """Ask again and again until the answer is so, and give it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not so(answer := await ask()):
            await asyncio.sleep(0.005)
    return answer
