"""What can be done about what an upstream host says: the doctor tells it, and Explain."""

import re

from engine.model.outcome import Outcome
from engine.settings.settings import Route

# As large providers and Postfix put it: "SendAsDenied", "does not have permissions to send as this sender", "Sender
# address rejected: not owned by user", "Email address is not verified".
_SENDER = re.compile(r"\bsend ?as|sender address rejected|\bnot owned by\b|\bnot verified\b", re.IGNORECASE)
_SENDERS = {"5.2.252", "5.7.60"}
# "Daily user sending limit exceeded", "Submission quota exceeded", "reached your daily limit".
_ENOUGH = re.compile(r"\b(?:daily|hourly|sending|submission) (?:\w+ ){0,2}(?:limit|quota)\b", re.IGNORECASE)


def remedy(route: Route, outcome: Outcome, sender: str = "") -> str:
    """What to do about a failure at a host of a route, in a sentence; "" where nobody can tell.

    `sender` is that of the mail which failed. A sender that the host will not have is known by its words, for its codes
    are those of much else.
    """
    of = named(route)
    match outcome.cause:
        case "connect":
            return f"see {of}.host and .port, and whether a firewall lets you out there"
        case "login":
            return f"see {of}.username and where its password or token comes from"
        case "tls":
            return f"see {of}.tls and .ca_file, and the host's certificate"
    if not route.username or not outcome.code or outcome.kind == "delivered":
        return ""
    if outcome.enhanced in _SENDERS or _SENDER.search(outcome.text):
        as_whom = f" as {sender}" if sender else " as this sender"
        return (
            f"have whoever keeps the login {route.username} there let it send{as_whom}, or have the address put right "
            "as mail comes in ([[rewrite]])"
        )
    if _ENOUGH.search(outcome.text):
        return f"it has had enough of the login {route.username}: [[limit]] slows what goes there; or ask for more"
    return ""


def named(route: Route) -> str:
    """A route as an operator finds it in the settings."""
    return f'[[route]] "{route.domain}"'
