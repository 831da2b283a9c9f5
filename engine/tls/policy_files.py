"""Policy files over HTTPS (RFC 8461 3.3): checked certificate, no redirect, no cache, bounded in size and time."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from engine.dns.lookups import Lookups, MXError
from engine.settings.kinds import Network
from engine.tls import https
from engine.tls.mta_sts import LARGEST, PolicyError

HTTPS = 443
_SECONDS = 30.0  # for all of it; RFC 8461 3.3 suggests up to a minute


class HttpsFetch:
    """Fetches the file of a domain from its policy server, whose address our own resolver gives.

    `port` differs from 443 in tests only; `ca_file` holds the authorities to trust instead of the system's; `seconds`
    bound all of it, from the name to the last byte. No server in `refused` networks is asked.
    """

    def __init__(
        self,
        lookups: Lookups,
        *,
        port: int = HTTPS,
        ca_file: Path | None = None,
        seconds: float = _SECONDS,
        refused: Sequence[Network] = (),
    ) -> None:
        self._refused = refused
        self._seconds = seconds
        self._lookups = lookups
        self._port = port
        self._ca_file = ca_file

    async def __call__(self, domain: str) -> bytes:
        """The file. Raises PolicyError."""
        url = f"https://mta-sts.{domain}:{self._port}/.well-known/mta-sts.txt"
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(url)
        except TimeoutError:
            raise PolicyError(f"{url}: not had within {self._seconds:g} s") from None
        except (aiohttp.ClientError, MXError, OSError, ValueError) as error:
            raise PolicyError(f"{url}: {str(error) or type(error).__name__}") from error

    async def _get(self, url: str) -> bytes:
        async with (
            https.client(
                self._lookups, accept="text/plain", seconds=self._seconds, ca_file=self._ca_file, refused=self._refused
            ) as client,
            client.get(url, allow_redirects=False) as answer,  # RFC 8461 3.3: redirects must not be followed
        ):
            if answer.status != 200:
                raise PolicyError(f"{url}: the server answers {answer.status}; only 200 gives a policy")
            if answer.content_type != "text/plain":  # RFC 8461 3.2: else anyone who may upload could set a policy
                raise PolicyError(f"{url}: its type is {answer.content_type}, not text/plain")
            return await https.body(answer, LARGEST)
