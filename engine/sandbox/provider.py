"""A provider of the sandbox: it relays for those who log in, by password or token, and has rules for what they send."""

import secrets
from collections import Counter
from typing import ClassVar

from aiohttp import web

from engine.base.clock import Clock
from engine.sandbox.certificates import Certificates
from engine.sandbox.exchanges import Action, Session, Temper

TOKEN_SECONDS = 3600


class TokenServer:
    """Gives tokens over HTTPS (RFC 6749) at `/token`, each good for `seconds`, to whoever has a refresh token.

    `refreshes` are those, with the name each is for; `rotates`: each is good once, and the next comes with the token.
    `asked` counts the requests, by what came of them.
    """

    def __init__(self, host: str, certificates: Certificates, clock: Clock, *, address: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.address = address
        self.seconds = TOKEN_SECONDS
        self.rotates = False
        self.refreshes: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self._clock = clock
        self._certificates = certificates
        self._given: dict[str, tuple[str, float]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"https://{self.host}:{self.port}/token"

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/token", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.address, 0, ssl_context=self._certificates.context(self.host, "good"))
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End it."""
        if self._runner is not None:
            await self._runner.cleanup()

    def revoke(self) -> None:
        """No token that was given is good any more."""
        self._given.clear()

    def give(self, username: str) -> str:
        """A new token."""
        token = f"ya29.{secrets.token_urlsafe(40)}"
        self._given[token] = (username, self._clock.monotonic() + self.seconds)
        return token

    def is_good(self, username: str, token: str) -> bool:
        """Whether a token is one of this user's, and not over."""
        owner, until = self._given.get(token, ("", 0.0))
        return owner == username and self._clock.monotonic() < until

    async def _answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        grant, given = form.get("grant_type"), str(form.get("refresh_token", ""))
        if grant == "client_credentials" and form.get("client_secret"):
            username = str(form.get("client_id"))
        elif grant == "refresh_token" and given in self.refreshes:
            username = self.refreshes[given]
        else:
            self.asked["refused"] += 1
            why = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
            return web.json_response(why, status=400)
        self.asked[str(grant)] += 1
        answer = {"access_token": self.give(username), "expires_in": self.seconds, "token_type": "Bearer"}
        if self.rotates:
            following = secrets.token_urlsafe(20)
            self.refreshes = {following: self.refreshes.pop(given)}
            answer["refresh_token"] = following
        return web.json_response(answer)


class Provider(Temper):
    """Submission as large providers have it: TLS, a login, a sender that is the login's, so many messages a day.

    `may_send`: the senders each login may have, besides itself; `a_day`: messages, after which the rest is refused for
    the day.
    """

    word: ClassVar[str] = "a provider"
    certificate = "good"

    def __init__(
        self,
        tokens: TokenServer | None = None,
        logins: dict[str, str] | None = None,
        *,
        at_once: bool = False,
        may_send: dict[str, tuple[str, ...]] | None = None,
        a_day: int = 2000,
    ) -> None:
        self.tokens = tokens.is_good if tokens is not None else None
        self.logins = logins or {}
        self.tls_at_once = at_once
        self.may_send = may_send or {}
        self.a_day = a_day
        self.sent: Counter[str] = Counter()

    def refusal(self, mechanism: str) -> str:
        """As Google has it for passwords, and Microsoft for tokens."""
        if mechanism in ("PLAIN", "LOGIN"):
            return (
                "535 5.7.8 Username and Password not accepted. For more information, go to\n"
                "535 5.7.8  https://support.example/mail/?p=BadCredentials"
            )
        return "535 5.7.3 Authentication unsuccessful"

    async def reply(self, session: Session, verb: str, argument: str) -> str | bytes | Action | None:
        """The rules."""
        if verb == "AUTH" and not session.tls:
            return "530 5.7.0 Must issue a STARTTLS command first"
        if verb == "content" and session.login:
            sender = session.sender or ""
            if sender and sender != session.login and sender not in self.may_send.get(session.login, ()):
                return f"554 5.2.252 SendAsDenied; {session.login} not allowed to send as {sender}"
            if self.sent[session.login] >= self.a_day:
                return "421 4.7.28 Daily user sending limit exceeded, try again later"
            self.sent[session.login] += 1
        return await super().reply(session, verb, argument)
