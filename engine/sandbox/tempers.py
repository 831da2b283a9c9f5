"""The tempers of mail exchanges that one meets on the internet, from the helpful to the hostile."""

import asyncio
import random
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from engine.base.kept import Kept
from engine.sandbox.exchanges import Action, Offer, Session, Temper

Said = str | bytes | Action | None

_REMEMBERED = 100_000  # pairs a greylist keeps


class Healthy(Temper):
    """Takes everything."""


class Notifying(Temper):
    """Offers DSN: tells senders what they asked to be told."""

    word: ClassVar[str] = "offers DSN"
    extensions = (*Temper.extensions, "DSN")


class Chunking(Temper):
    """Offers CHUNKING: takes messages with BDAT, too (RFC 3030)."""

    word: ClassVar[str] = "offers CHUNKING"
    extensions = (*Temper.extensions, "CHUNKING")


class HelloOnly(Temper):
    """Knows HELO and nothing newer."""

    word: ClassVar[str] = "knows HELO only"
    extended = False
    extensions = ()


class Encrypted(Temper):
    """Offers STARTTLS: with a good certificate, a "self-signed" or "expired" one, or one of a "wrong name".

    "broken": the handshake ends in garbage.
    """

    word: ClassVar[str] = "encrypted"

    def __init__(self, certificate: Offer = "good") -> None:
        self.certificate = certificate


class Authenticating(Temper):
    """Takes mail only from those who log in; `certificate` as for Encrypted, or None."""

    word: ClassVar[str] = "wants a login"

    def __init__(self, logins: Mapping[str, str], certificate: Offer | None = None) -> None:
        self.logins = logins
        self.certificate = certificate


class EncryptedAtOnce(Temper):
    """Wants TLS before anything is said, as at port 465; `certificate` as for Encrypted."""

    word: ClassVar[str] = "encrypted at once"
    tls_at_once = True

    def __init__(self, certificate: Offer = "good") -> None:
        self.certificate = certificate


class Slow(Temper):
    """Thinks for `seconds` before each reply."""

    word: ClassVar[str] = "slow"

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Wait, then reply as usual."""
        await asyncio.sleep(self.seconds)
        return await super().reply(session, verb, argument)


class Tarpit(Temper):
    """Greets with one byte every `seconds`, for as long as the client bears it."""

    word: ClassVar[str] = "a tarpit"

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Drip."""
        for byte in b"220-" + b"please hold " * 1000:
            await session.send(bytes([byte]))
            await asyncio.sleep(self.seconds)
        return await super().reply(session, verb, argument)


class Greylisting(Temper):
    """Puts off each new pair of sender and recipient, and takes it `seconds` later by the exchange's clock."""

    word: ClassVar[str] = "greylisting"

    def __init__(self, seconds: float = 300.0) -> None:
        self.seconds = seconds
        self._since = Kept[tuple[str | None, str], float](_REMEMBERED)

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Decide at RCPT."""
        if verb != "RCPT":
            return await super().reply(session, verb, argument)
        now = session.exchange.clock.now()
        since = self._since.setdefault((session.sender, argument.lower()), now)
        wait = since + self.seconds - now
        return f"451 4.7.1 Greylisted, please try again in {wait:.0f} seconds" if wait > 0 else None


class Busy(Temper):
    """Turns everyone away at the door."""

    word: ClassVar[str] = "busy"

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """421 at the greeting."""
        if verb == "connect":
            return f"421 4.3.2 {session.exchange.host} Too many connections, try again later"
        return await super().reply(session, verb, argument)


class RateLimiting(Temper):
    """Takes `messages` in `seconds` by the exchange's clock, then hangs up at MAIL until there is room again."""

    word: ClassVar[str] = "rate-limiting"

    def __init__(self, messages: int = 20, seconds: float = 60.0) -> None:
        self.messages = messages
        self.seconds = seconds
        self._taken: deque[float] = deque()

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Count contents, decide at MAIL."""
        now = session.exchange.clock.now()
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if verb == "MAIL" and len(self._taken) >= self.messages:
            return "421 4.7.28 Our system has detected an unusual rate of mail from your address. Try again later."
        if verb == "content":
            self._taken.append(now)
        return await super().reply(session, verb, argument)


class Refusing(Temper):
    """Refuses recipients for good: those whose local part is in `unknown`, or everyone when that is None."""

    word: ClassVar[str] = "refusing"

    def __init__(self, unknown: Collection[str] | None = None) -> None:
        self.unknown = unknown

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """550 for one who is not there, 554 for all."""
        if verb == "RCPT":
            if self.unknown is None:
                return "554 5.7.1 Message refused: your network is not welcome here"
            address = argument.partition("<")[2].partition(">")[0]
            if address.rpartition("@")[0].lower() in self.unknown:
                return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        return await super().reply(session, verb, argument)


class TemporarilyFailing(Temper):
    """Fails `share` of all recipients for now, each time in other words and with an id of its own."""

    word: ClassVar[str] = "failing for now"

    def __init__(self, share: float = 1.0, draw: random.Random | None = None) -> None:
        self.share = share
        self._draw = draw or random.Random(4)
        self._count = 0

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """One of several 4xx at RCPT."""
        if verb != "RCPT" or self._draw.random() >= self.share:
            return await super().reply(session, verb, argument)
        self._count += 1
        return (
            f"450 4.2.1 Mailbox temporarily locked (req {self._draw.getrandbits(48):012x})",
            f"452 4.2.2 Mailbox full, queue id {self._draw.getrandbits(40):010X}",
            f"451 4.3.0 Temporary lookup failure, see log entry #{self._draw.randrange(10**6, 10**7)}",
        )[self._count % 3]


class Dead(Temper):
    """Nothing listens: connections are refused."""

    word: ClassVar[str] = "dead"
    listens = False


class BlackHole(Temper):
    """Takes connections and never says a word."""

    word: ClassVar[str] = "a black hole"

    async def reply(self, session: Session, verb: str, argument: str) -> Said:  # noqa: ARG002
        """Nothing."""
        return Action.SILENCE


class Disconnecting(Temper):
    """Drops the connection instead of replying at one point: "connect", "EHLO", "MAIL", "DATA", "content"...

    `delivers`: at "content" the message is kept before the connection goes, so that sending it again duplicates it.
    """

    word: ClassVar[str] = "disconnecting"

    def __init__(self, at: str = "MAIL", *, delivers: bool = False) -> None:
        self.at = at
        self.delivers = delivers

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Drop at the point."""
        if verb != self.at:
            return await super().reply(session, verb, argument)
        if self.delivers and verb == "content":
            session.deliver()
        return Action.DROP


class Hostile(Temper):
    """Tries to steer the terminal of whoever reads its replies; takes no mail."""

    word: ClassVar[str] = "hostile"

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """Escape sequences, markup, bidi controls and bytes that are no UTF-8."""
        match verb:
            case "connect":
                return b"220 \x1b]0;owned\x07\x1b[2J\x1b[31m mx \x9b5m ESMTP [@click=app.quit]x[/]\r\n"
            case "RCPT":
                attacks = (
                    b"451 4.7.1 \x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\ [/bold][red]later[/x]\r\n",
                    b"451-4.7.1 \x1b]52;c;cm0gLXJmIH4=\x07\r\n451 4.7.1 \xe2\x80\xae txt.exe \xe2\x81\xa6\r\n",
                    b"451 4.7.1 \xff\xfe\x80 \x90q\x9c \x1bP+q\x1b\\ \x07\x08\x7f\x00 busy\r\n",
                )
                return attacks[session.number % len(attacks)]
        return await super().reply(session, verb, argument)


class Script(Temper):
    """Replies as written: for each verb a reply, or several to be used in turn, of which the last repeats.

    Bases its usual replies and what it offers on `on`.
    """

    word: ClassVar[str] = "scripted"

    def __init__(self, replies: Mapping[str, Said | Sequence[Said]], *, on: Temper | None = None) -> None:
        self._on = on or Healthy()
        self._replies = {
            verb: deque(said) if isinstance(said, Sequence) and not isinstance(said, str | bytes) else deque([said])
            for verb, said in replies.items()
        }
        self.extended = self._on.extended
        self.extensions = self._on.extensions
        self.certificate = self._on.certificate
        self.logins = self._on.logins

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        """The next reply written for this verb."""
        if replies := self._replies.get(verb):
            return replies.popleft() if len(replies) > 1 else replies[0]
        return await self._on.reply(session, verb, argument)
