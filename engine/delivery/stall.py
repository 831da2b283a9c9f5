"""What is usual: how long a phase of a session takes where all is well, and so from when on it stalls."""

from engine.settings.settings import Timeouts
from engine.smtpclient.session import Phase

_LONGEST = 20.0  # seconds in one phase; an exchange that is well answers in a few


def usual(phase: Phase, timeouts: Timeouts) -> float:
    """Seconds that are usual in a phase: half its time-out, but no more than an operator should wait to see.

    RFC 5321 4.5.3.2 grants minutes where a peer that is well takes seconds. A body takes the time of its blocks; what
    waits for us, as an idle connection does, does not stall.
    """
    match phase:
        case "idle" | "ended":
            return float("inf")
        case "body":
            return timeouts.block / 2
        case "lookup":
            return _LONGEST
        case "connecting":
            granted = timeouts.connect
        case "hello" | "AUTH":
            granted = timeouts.hello
        case _:
            granted = getattr(timeouts, phase.lower())
    return min(granted / 2, _LONGEST)


# Seconds for what comes before the message itself, where others wait for the connection and it has proved nothing.
PATIENCE = 60.0
_LONGEST_BODY = 300.0  # seconds for the message, where others wait: 25 MiB at 700 kbit/s


def patience(phase: Phase, timeouts: Timeouts) -> float:
    """Seconds that a phase may take where others wait for the connection, and it has proved nothing.

    The reply to the final dot is waited for all the same: impatience duplicates mail (RFC 1047). So is what is short
    by itself.
    """
    match phase:
        case "idle" | "ended" | "lookup" | "QUIT" | "reply":
            return float("inf")
        case "body":
            return _LONGEST_BODY
        case _:
            return usual(phase, timeouts)
