"""One SMTP session with somebody who logs in: STARTTLS, AUTH, and no mail without them (RFC 6409, 3207, 4954)."""

import asyncio
import logging
import unicodedata
from base64 import b64decode
from contextlib import suppress
from ssl import SSLContext

from engine.base.text import clean
from engine.intake.smtp.reception import Reception
from engine.intake.smtp.session import IDLE, Session
from engine.intake.smtp.tls import HANDSHAKE, SHUTDOWN
from engine.intake.smtp.users import Logins, Unavailable

_LOG = logging.getLogger(__name__)

MAX_FAILED = 5  # logins that fail in one session before it ends
MAX_ANSWER = 12_288  # octets of a line of AUTH, RFC 4954 4.1
MAX_LOGIN = 255  # characters of a login that are looked at

_USERNAME, _PASSWORD = "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"  # what clients of LOGIN wait for
_MECHANISMS = ("PLAIN", "LOGIN")


class _Stopped(Exception):
    """The exchange of AUTH ends here; the text is the reply."""


class SubmissionSession(Session):
    """A session in which nothing is taken before TLS and a login, whatever the client's address."""

    absent = ()
    door = "submission"

    def __init__(
        self,
        reception: Reception,
        sessions: set[Session],
        *,
        tls: SSLContext,
        logins: Logins,
        secure: bool = False,
        idle: float = IDLE,
    ) -> None:
        super().__init__(reception, sessions, idle=idle)
        self._context = tls
        self._logins = logins
        self._secure = secure
        self._failed = 0
        if secure:
            self._over_ssl = True

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """MAIL: only under TLS (RFC 3207 4), and only after AUTH (RFC 4954 6, RFC 6409 4.3)."""
        if not self._secure:
            await self.push("530 5.7.0 Must issue a STARTTLS command first")
        elif not self._login:
            await self.push("530 5.7.0 Authentication required")
        else:
            await super().smtp_MAIL(arg)

    def _offers(self) -> tuple[str, ...]:
        more = f"AUTH {' '.join(_MECHANISMS)}" if self._secure else "STARTTLS"
        return (*super()._offers(), more)

    def _protocol(self) -> str:
        """RFC 3848, RFC 6531 4.3: S for TLS, A for AUTH; a message is taken only with both."""
        return super()._protocol() + "SA"

    # -- TLS ------------------------------------------------------------------------------------------------------

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        """STARTTLS: go over to TLS (RFC 3207)."""
        if arg:
            await self.push("501 5.5.4 STARTTLS takes no argument")
        elif self._secure:
            await self.push("503 5.5.1 TLS is active already")
        else:
            await self._go_over()

    async def _go_over(self) -> None:
        """Say 220 and shake hands. What was said in the clear is forgotten, and what was sent ahead thrown away."""
        await self._writer.drain()
        raw = self._line
        if raw is None or raw.is_closing():
            raise ConnectionResetError("the session has ended")
        # RFC 3207 4.2 and 5: whoever sits in the path could put commands there which would be taken for the client's.
        # From here to the handshake nothing else runs, so that all that comes later is TLS's.
        if ahead := self._reader.discard():  # type: ignore[attr-defined]
            self._refuse("clear text after STARTTLS", f"{ahead} octets thrown away")
        raw.write(b"220 2.0.0 Ready to start TLS\r\n")
        try:
            secure = await self.loop.start_tls(
                raw,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except OSError as error:  # TLS errors and time-outs among them
            _LOG.info("TLS with %s failed: %s", self._peer, clean(str(error), 200))
            raw.abort()
            self.connection_lost(None)  # which nobody calls when the handshake fails
            raise ConnectionResetError("TLS failed") from error
        if secure is None:  # the loop says so where the connection was closed meanwhile
            raise ConnectionResetError("the client has gone")
        self.transport = secure
        self._writer._transport = secure  # type: ignore[attr-defined]  # noqa: SLF001
        self._reader.go_over(secure)  # type: ignore[attr-defined]
        self._over_ssl, self._secure = True, True
        # RFC 3207 4.2: the server forgets what it learned from the client, such as its name.
        self.session = self._create_session()
        self.envelope = self._create_envelope()

    # -- who it is ------------------------------------------------------------------------------------------------

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """AUTH: who it is (RFC 4954)."""
        if not self._secure:
            await self.push("538 5.7.11 Encryption required for requested authentication mechanism")
            return
        if await self.check_helo_needed("EHLO"):
            return
        if self._login or self._mail.sender is not None:
            await self.push("503 5.5.1 AUTH comes once, and not in a transaction")  # RFC 4954 4
            return
        try:
            name, password = await self._credentials(arg)
        except _Stopped as stopped:
            await self.push(str(stopped))
            return
        reply = await self._judged_login(name, password)
        if not reply.startswith("421"):
            await self.push(reply)
        else:
            self.close(reply)

    async def _credentials(self, arg: str | None) -> tuple[str, str]:
        """Carry out the exchange of a mechanism; give login and password. Raises _Stopped."""
        words = (arg or "").split()
        if not 1 <= len(words) <= 2:
            raise _Stopped("501 5.5.4 AUTH mechanism, and perhaps its initial response")
        mechanism = words[0].upper()
        first = words[1] if len(words) == 2 else None
        if mechanism == "PLAIN":  # RFC 4616 2
            parts = (_decoded(first) if first is not None else await self._ask("334 ")).split("\0")
            if len(parts) != 3:
                raise _Stopped("501 5.5.2 PLAIN is [identity] NUL login NUL password, in base64")
            identity, name, password = parts
            if identity not in {"", name}:
                raise _Stopped("535 5.7.8 Nobody may act for somebody else here")
            return name, password
        if mechanism == "LOGIN":
            name = _decoded(first) if first is not None else await self._ask(_USERNAME)
            return name, await self._ask(_PASSWORD)
        raise _Stopped(f"504 5.5.4 Known mechanisms are {' '.join(_MECHANISMS)}")

    async def _ask(self, challenge: str) -> str:
        await self.push(challenge)
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            self.close(f"421 4.7.0 {self.hostname} The line is far too long")
            raise ConnectionResetError("the client sends no end of a line") from None
        if len(line) > MAX_ANSWER:
            raise _Stopped("500 5.5.6 Authentication exchange line is too long")
        answer = line.rstrip(b"\r\n").decode("ascii", "replace")
        if answer == "*":  # RFC 4954 4: the client thinks better of it
            raise _Stopped("501 5.7.0 Authentication cancelled")
        return _decoded(answer)

    async def _judged_login(self, name: str, password: str) -> str:
        """Whether this login has this password, within what may be guessed; give the reply."""
        # As it is looked up: one login, one count of guesses. Composing makes a name shorter, by a quarter at the most,
        # and takes far more than its time for a longer one.
        name = unicodedata.normalize("NFC", name[: 4 * MAX_LOGIN])[:MAX_LOGIN]
        guesses, clock = self._reception.guesses, self._reception.clock
        if whose := guesses.refused(self._peer, name):
            self._refuse(f"too many failed logins of the {whose}", name)
            return f"421 4.7.0 {self.hostname} Too many failed logins, come again later"
        delay = guesses.begin(self._peer, name)
        if delay:
            await clock.wait(asyncio.Event(), clock.now() + delay)
        try:
            right = await self._logins.right(name, password)
        except Unavailable as error:
            guesses.forgive(self._peer, name)
            _LOG.warning("a login cannot be judged: %s", error)
            return "454 4.7.0 Temporary authentication failure"
        self._reset_timeout()
        if right:
            if guesses.right(self._peer, name):
                self._reception.remember(self._peer, name)
            return self._logged_in(name)
        self._failed += 1
        self._refuse("login failed", name)
        if self._failed >= MAX_FAILED:
            return f"421 4.7.0 {self.hostname} Too many failed logins"
        return "535 5.7.8 Authentication credentials invalid"

    def _logged_in(self, name: str) -> str:
        if refusal := self._reception.crowd.log_in(self, name):
            self._refuse("too many sessions", f"of the login {name}")
            return refusal
        self._login, self._trusted = name, True
        return "235 2.7.0 Authentication successful"


def _decoded(text: str) -> str:
    """What base64 stands for; "=" is nothing at all (RFC 4954 4). Raises _Stopped."""
    with suppress(ValueError):  # of base64 with what is no ASCII, besides binascii's and that of the characters
        return b64decode("" if text == "=" else text, validate=True).decode("utf-8")
    raise _Stopped("501 5.5.2 Not base64 of UTF-8")
