"""What we say to an SMTP client: a reply as a value, and the one place where it becomes octets (RFC 5321 4.2)."""

from msgspec import Struct

from engine.base.text import clean

MAX_REPLY = 500  # characters of a line, RFC 5321 4.5.3.1.5


class Reply(Struct, frozen=True):
    """A code from 200 to 599, an enhanced code (RFC 3463) or "", and the text behind them.

    `more` are further lines, each behind the code alone (RFC 5321 4.2.1). `closes`: the session ends with it.
    """

    code: int
    enhanced: str
    text: str
    more: tuple[str, ...] = ()
    closes: bool = False

    @property
    def is_permanent(self) -> bool:
        """Whether it says that to say the same again is of no use (RFC 5321 4.2.1)."""
        return self.code >= 500

    def encoded(self) -> bytes:
        """The octets for the wire: ASCII without controls, however much of the text is the client's own words."""
        first = f"{self.enhanced} {self.text}" if self.enhanced else self.text
        if not self.more:
            return _line(f"{self.code} {first}")
        *before, last = (first, *self.more)
        return b"".join((*(_line(f"{self.code}-{line}") for line in before), _line(f"{self.code} {last}")))


PAUSED = Reply(452, "4.3.1", "Not taking mail at the moment; try again later")
FULL = Reply(452, "4.3.1", "No room for this message at the moment; try again later")
UNSIGNED = Reply(451, "4.7.5", "This message cannot be signed at the moment; try again later")
SICK = Reply(451, "4.3.0", "This system has a problem; try again later")


def too_big(limit: int) -> Reply:
    """A message may have so many octets (RFC 1870 6.1)."""
    return Reply(552, "5.3.4", f"Message too big; at most {limit} octets are taken")


def goodbye(enhanced: str, hostname: str, why: str) -> Reply:
    """The reply 421, with which we hang up on whatever was said (RFC 5321 3.8 and 4.2.2)."""
    return Reply(421, enhanced, f"{hostname} {why}", closes=True)


def going_down(hostname: str) -> Reply:
    """What everybody hears when intake stops."""
    return goodbye("4.3.2", hostname, "Going down, come again")


def drained(hostname: str) -> Reply:
    """What everybody hears of an engine that operators have drained, where others share its queue."""
    return goodbye("4.3.2", hostname, "This node is being drained; try another")


def _line(text: str) -> bytes:
    return clean(text, MAX_REPLY).encode("ascii", "replace") + b"\r\n"  # in ASCII also where it was cut
