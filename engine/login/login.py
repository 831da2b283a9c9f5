"""A login at an upstream host: a name, and a password or tokens. What is secret never shows in a text of ours."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from msgspec import Struct

from engine.base.clock import Clock
from engine.base.text import clean

SLACK = 60.0  # seconds before its end from which on a token counts as over: it must last for a session's beginning
UNSAID = 300.0  # seconds that a token is used of which nobody said how long it lasts
REST = 10.0  # seconds until it is tried again, where none was to be had

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*", re.ASCII)  # RFC 6750 2.1, "b64token"


class NoLogin(Exception):
    """There is nothing to log in with now; the text says why, and holds no secret."""


class Token(Struct, frozen=True):
    """An access token, and for how many seconds it lasts; None: nobody said."""

    value: str
    seconds: float | None = None


class Answer(Struct):
    """What a token is given in (RFC 6749 5.1); all else that stands there is nobody's here."""

    access_token: str
    expires_in: float | None = None
    refresh_token: str = ""


class Password(Struct, frozen=True):
    """A name and a password."""

    username: str
    password: str


class Tokens:
    """The tokens of one name (RFC 6750), each used until shortly before it ends.

    `fetch` gets one, or raises NoLogin.
    """

    def __init__(self, username: str, fetch: Callable[[], Awaitable[Token]], clock: Clock) -> None:
        self.username = username
        self._fetch = fetch
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._token = ""
        self._until = 0.0
        self._trouble = ""
        self._rests_until = 0.0

    async def token(self) -> str:
        """One that is good for a while. Raises NoLogin."""
        async with self._fetching:  # one asks, and all others have what came of it
            now = self._clock.monotonic()
            if self._token and now < self._until:
                return self._token
            if self._trouble and now < self._rests_until:
                raise NoLogin(self._trouble)
            try:
                token = await self._fetch()
                if not _BEARER.fullmatch(token.value):
                    raise NoLogin("what came is no token")
            except NoLogin as error:
                self._token, self._trouble, self._rests_until = "", clean(str(error)), now + REST
                raise
            self._token, self._trouble = token.value, ""
            self._until = now + (UNSAID if token.seconds is None else max(token.seconds - SLACK, token.seconds / 2))
            return self._token

    def refused(self, token: str) -> None:
        """A host would not have this token: another is got before the next login, however long it was to last."""
        if token == self._token:
            self._token = ""


Login = Password | Tokens
