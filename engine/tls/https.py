"""HTTPS as the relay speaks it: names by our own resolver, checked certificates, no cache, bounded in size and time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from engine.dns.http_resolver import HttpResolver
from engine.dns.lookups import Lookups
from engine.settings.kinds import Network
from engine.tls.contexts import verifying

CONNECT_SECONDS = 10.0


class TooLong(ValueError):
    """An answer goes on beyond what is read of it."""


@asynccontextmanager
async def client(
    lookups: Lookups, *, accept: str, seconds: float, ca_file: Path | None = None, refused: Sequence[Network] = ()
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that takes answers of the type `accept`, within `seconds` for each from the name to the last byte.

    `ca_file` holds the authorities to trust instead of the system's; no server in `refused` networks is asked.
    """
    connector = aiohttp.TCPConnector(
        resolver=HttpResolver(lookups, refused), ssl=verifying(ca_file), force_close=True, use_dns_cache=False
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
        headers={"User-Agent": "smarthost", "Accept": accept, "Accept-Encoding": "identity"},
    ) as session:
        yield session


async def body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """What an answer holds, up to so many bytes. Raises TooLong."""
    read = bytearray()
    async for piece in answer.content.iter_any():
        read += piece
        if len(read) > most:
            raise TooLong(f"more than {most} bytes")
    return bytes(read)
