"""One SMTP session with somebody who logs in: STARTTLS, AUTH, and no mail without them (RFC 6409, 3207, 4954)."""

import asyncio
import logging
import unicodedata
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import ClassVar

from engine.base.text import clean
from engine.intake.errors import Refused
from engine.intake.reply import Reply, goodbye
from engine.intake.smtp.connection import LineTooLong
from engine.intake.smtp.reception import Reception
from engine.intake.smtp.senders import may_send, shown
from engine.intake.smtp.session import IDLE, Method, Session
from engine.intake.smtp.transaction import Transaction
from engine.intake.smtp.users import Logins, Unavailable

log = logging.getLogger(__name__)

MAX_FAILED = 5  # logins that fail in one session before it ends
MAX_ANSWER = 12_288  # octets of a line of AUTH, RFC 4954 4.1
MAX_LOGIN = 255  # characters of a login that are looked at

_GO_ON = Reply(334, "", "")
_USERNAME, _PASSWORD = Reply(334, "", "VXNlcm5hbWU6"), Reply(334, "", "UGFzc3dvcmQ6")  # what clients of LOGIN wait for
_MECHANISMS = ("PLAIN", "LOGIN")


class SubmissionSession(Session):
    """A session in which nothing is taken before TLS and a login, whatever the client's address."""

    door = "submission"

    def __init__(
        self,
        reception: Reception,
        sessions: set[Session],
        *,
        tls: SSLContext,
        logins: Logins,
        is_secure: bool = False,
        idle: float = IDLE,
    ) -> None:
        super().__init__(reception, sessions, idle=idle, is_secure=is_secure)
        self._context = tls
        self._logins = logins
        self._senders: tuple[str, ...] = ()
        self._failed = 0

    async def mail(self, argument: str | None) -> Reply:
        """MAIL: only under TLS (RFC 3207 4), and only after AUTH (RFC 4954 6, RFC 6409 4.3)."""
        if not self.connection.is_secure:
            return Reply(530, "5.7.0", "Must issue a STARTTLS command first")
        if not self._login:
            return Reply(530, "5.7.0", "Authentication required")
        return await super().mail(argument)

    def _check_sender(self, mail: Transaction) -> None:
        """Whether the login may send as whom it says (RFC 6409 6.1). Raises Refused."""
        if may_send(self._senders, mail.sender):
            return
        self._tell("no sender of the login", self._login, sender=str(mail.sender))
        login, theirs = clean(self._login, 60), clean(shown(self._senders), 200)
        why = f"{clean(str(mail.sender), 100)} is not a sender of the login {login}, which may send as {theirs}"
        raise Refused(Reply(553, "5.7.1", why))

    def _offers(self) -> tuple[str, ...]:
        more = f"AUTH {' '.join(_MECHANISMS)}" if self.connection.is_secure else "STARTTLS"
        return (*super()._offers(), more)

    def _protocol(self, mail: Transaction) -> str:
        """RFC 3848, RFC 6531 4.3: S for TLS, A for AUTH; a message is taken only with both."""
        return super()._protocol(mail) + "SA"

    # -- TLS ------------------------------------------------------------------------------------------------------

    async def starttls(self, argument: str | None) -> Reply | None:
        """STARTTLS: go over to TLS (RFC 3207). What was said in the clear is forgotten, what came ahead thrown away.

        Waits for the handshake, as `Connection.start_tls` does. Raises Gone.
        """
        if argument:
            return Reply(501, "5.5.4", "STARTTLS takes no argument")
        if self.connection.is_secure:
            return Reply(503, "5.5.1", "TLS is active already")
        await self.connection.flushed()
        # RFC 3207 4.2 and 5: whoever sits in the path could put commands there which would be taken for the client's.
        if ahead := self.connection.discard():
            self._tell("clear text after STARTTLS", f"{ahead} octets thrown away")
        await self.connection.start_tls(self._context, Reply(220, "2.0.0", "Ready to start TLS"))
        # RFC 3207 4.2: the server forgets what it learned from the client, such as its name.
        self._greeted, self._extended = "", False
        self._forget()
        return None

    # -- who it is ------------------------------------------------------------------------------------------------

    async def auth(self, argument: str | None) -> Reply:
        """AUTH: who it is (RFC 4954). Waits for each answer as for a command, and for the password to be judged."""
        if not self.connection.is_secure:
            return Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
        self._need_greeting("EHLO")
        if self._login or self._mail is not None:
            return Reply(503, "5.5.1", "AUTH comes once, and not in a transaction")  # RFC 4954 4
        name, password = await self._credentials(argument)
        return await self._judged_login(name, password)

    commands: ClassVar[Mapping[str, Method]] = {**Session.commands, "MAIL": mail, "STARTTLS": starttls, "AUTH": auth}

    async def _credentials(self, argument: str | None) -> tuple[str, str]:
        """Carry out the exchange of a mechanism; give login and password. Raises Refused, Gone."""
        words = (argument or "").split()
        if not 1 <= len(words) <= 2:
            raise Refused(Reply(501, "5.5.4", "AUTH mechanism, and perhaps its initial response"))
        mechanism = words[0].upper()
        first = words[1] if len(words) == 2 else None
        if mechanism == "PLAIN":  # RFC 4616 2
            parts = (_decoded(first) if first is not None else await self._ask(_GO_ON)).split("\0")
            if len(parts) != 3:
                raise Refused(Reply(501, "5.5.2", "PLAIN is [identity] NUL login NUL password, in base64"))
            identity, name, password = parts
            if identity not in {"", name}:
                raise Refused(Reply(535, "5.7.8", "Nobody may act for somebody else here"))
            return name, password
        if mechanism == "LOGIN":
            name = _decoded(first) if first is not None else await self._ask(_USERNAME)
            return name, await self._ask(_PASSWORD)
        raise Refused(Reply(504, "5.5.4", f"Known mechanisms are {' '.join(_MECHANISMS)}"))

    async def _ask(self, challenge: Reply) -> str:
        """Say this and give the answer. Raises Refused, Gone."""
        self._say(challenge)
        try:
            line = await self.connection.line()
        except LineTooLong:
            raise Refused(goodbye("4.7.0", self.hostname, "The line is far too long")) from None
        if len(line) > MAX_ANSWER:
            raise Refused(Reply(500, "5.5.6", "Authentication exchange line is too long"))
        answer = line.rstrip(b"\r\n").decode("ascii", "replace")
        if answer == "*":  # RFC 4954 4: the client thinks better of it
            raise Refused(Reply(501, "5.7.0", "Authentication cancelled"))
        return _decoded(answer)

    async def _judged_login(self, name: str, password: str) -> Reply:
        """Whether this login has this password, within what may be guessed; give the reply.

        A guess waits for LONGEST_DELAY at most, and for MAX_WAITING other passwords.
        """
        # As it is looked up: one login, one count of guesses. Composing makes a name shorter, by a quarter at the most,
        # and takes far more than its time for a longer one.
        name = unicodedata.normalize("NFC", name[: 4 * MAX_LOGIN])[:MAX_LOGIN]
        guesses, clock = self._reception.guesses, self._reception.clock
        if whose := guesses.refused(self._peer, name):
            self._tell(f"too many failed logins of the {whose}", name)
            return goodbye("4.7.0", self.hostname, "Too many failed logins, come again later")
        delay = guesses.begin(self._peer, name)
        self.connection.flush()
        if delay:
            await clock.wait(asyncio.Event(), clock.now() + delay)
        try:
            right = await self._logins.right(name, password)
        except Unavailable as error:
            guesses.forgive(self._peer, name)
            log.warning("a login cannot be judged: %s", error)
            return Reply(454, "4.7.0", "Temporary authentication failure")
        self.connection.heard()
        if right:
            if guesses.right(self._peer, name):
                self._reception.remember(self._peer, name)
            return self._logged_in(name)
        self._failed += 1
        self._tell("login failed", name)
        if self._failed >= MAX_FAILED:
            return goodbye("4.7.0", self.hostname, "Too many failed logins")
        return Reply(535, "5.7.8", "Authentication credentials invalid")

    def _logged_in(self, name: str) -> Reply:
        if refusal := self._reception.occupancy.log_in(self, name):
            self._tell("too many sessions", f"of the login {name}")
            return refusal
        self._login, self._trusted = name, True
        self._senders = self._logins.senders(name, self.hostname)
        return Reply(235, "2.7.0", "Authentication successful")


def _decoded(text: str) -> str:
    """What base64 stands for; "=" is nothing at all (RFC 4954 4). Raises Refused."""
    with suppress(ValueError):  # of base64 with what is no ASCII, besides binascii's and that of the characters
        return b64decode("" if text == "=" else text, validate=True).decode("utf-8")
    raise Refused(Reply(501, "5.5.2", "Not base64 of UTF-8"))
