"""Tokens from a token endpoint (RFC 6749): for a refresh token (6), or for the client itself (4.4)."""

import asyncio
import hashlib
import logging
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from engine.base.files import put
from engine.base.text import clean
from engine.dns.lookups import Lookups
from engine.login.login import Answer, NoLogin, Token
from engine.settings.settings import OAuth
from engine.tls import https

log = logging.getLogger(__name__)

SECONDS = 30.0  # for all of it
LARGEST = 64 * 1024  # bytes of an answer


class _Refusal(Struct):
    """Why there is no token (RFC 6749 5.2)."""

    error: str = ""
    error_description: str = ""


class _Kept(Struct):
    """A refresh token that an endpoint gave in the place of another; `of` is a digest of the one that settings name."""

    of: str
    token: str


class TokenEndpoint:
    """Asks for tokens as the settings say. A refresh token that comes with one is used from then on.

    It is kept in `folder`, mode 0600, and forgotten where the settings name another one than it came for.
    """

    def __init__(self, oauth: OAuth, username: str, lookups: Lookups, folder: Path) -> None:
        self._oauth = oauth
        self._lookups = lookups
        named = f"{oauth.token_endpoint}\n{oauth.client_id}\n{username}"
        self._kept = folder / hashlib.sha256(named.encode()).hexdigest()[:32]

    async def __call__(self) -> Token:
        """One token. Raises NoLogin."""
        where = f"the token endpoint {self._oauth.token_endpoint}"
        try:
            form, named = await asyncio.to_thread(self._form)
            async with asyncio.timeout(SECONDS):
                status, body = await self._post(form)
        except TimeoutError:
            raise NoLogin(f"{where}: no answer within {SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoLogin(f"{where}: {clean(str(error), 200) or type(error).__name__}") from error
        if status != 200:
            raise NoLogin(f"{where} answers {status}{_why(body)}")
        try:
            answer = msgspec.json.decode(body, type=Answer, strict=False)
        except msgspec.DecodeError as error:
            raise NoLogin(f"{where} answers with no access_token: {error}") from error
        if answer.refresh_token and answer.refresh_token != form.get("refresh_token"):
            await asyncio.to_thread(self._keep, _Kept(of=_digest(named), token=answer.refresh_token))
        return Token(answer.access_token, answer.expires_in)

    def _form(self) -> tuple[dict[str, str], str]:
        """What is sent, and the refresh token that the settings name. The files are read anew each time. OSError."""
        oauth = self._oauth
        form = {"client_id": oauth.client_id}
        named = ""
        if oauth.refresh_token_file is not None:
            named = oauth.refresh_token_file.read_text(encoding="utf-8").strip()
            form |= {"grant_type": "refresh_token", "refresh_token": self._latest(named)}
        else:
            form["grant_type"] = "client_credentials"
        if oauth.client_secret_file is not None:
            form["client_secret"] = oauth.client_secret_file.read_text(encoding="utf-8").strip()
        if oauth.scope:
            form["scope"] = oauth.scope
        return form, named

    def _latest(self, named: str) -> str:
        """The refresh token to use: the last one that came in the place of the one that is named."""
        try:
            kept = msgspec.json.decode(self._kept.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return named
        return kept.token if kept.of == _digest(named) else named

    def _keep(self, kept: _Kept) -> None:
        try:
            self._kept.parent.mkdir(mode=0o700, exist_ok=True)
            put(self._kept, msgspec.json.encode(kept))
        except OSError as error:  # the one before may still do
            log.error("the new refresh token of %s cannot be kept: %s", self._oauth.token_endpoint, error)

    async def _post(self, form: dict[str, str]) -> tuple[int, bytes]:
        async with (
            https.client(
                self._lookups, accept="application/json", seconds=SECONDS, ca_file=self._oauth.ca_file
            ) as client,
            client.post(self._oauth.token_endpoint, data=form, allow_redirects=False) as answer,
        ):
            return answer.status, await https.body(answer, LARGEST)


def _why(body: bytes) -> str:
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except msgspec.DecodeError:
        return ""
    words = clean(": ".join(filter(None, (refusal.error, refusal.error_description))), 300)
    return f": {words}" if words else ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
