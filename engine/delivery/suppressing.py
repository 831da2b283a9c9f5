"""Which failures bring an address on the suppression list: one pure function decides."""

from engine.delivery.dsn import NULL_SENDER
from engine.model.claim import Claim, ClaimedEntry
from engine.model.outcome import Outcome
from engine.model.suppression import key_of
from engine.settings.settings import Settings


def suppressed_for(claim: Claim, entry: ClaimedEntry, outcome: Outcome, settings: Settings) -> float | None:
    """What an outcome of a recipient means for the list: see EntryResult.suppress.

    It comes on it where an exchange that the DNS names for its own domain says of it, at RCPT, and not of a message or
    a sender, with one of the codes that are set, that it takes no mail. What hosts of routes and overrides say does not
    count, since they stand for many; nor what was said to mail without a sender, whose recipients anybody can forge.
    """
    rules = settings.suppression
    if not rules.enabled:
        return None
    if outcome.kind == "delivered":
        return 0.0
    is_of_address = outcome.cause == "reply" and outcome.phase == "RCPT" and outcome.enhanced in rules.codes
    if outcome.kind != "permanent" or not is_of_address or outcome.is_named or claim.sender == NULL_SENDER:
        return None
    return None if key_of(entry.recipient) in settings.own_postmasters else rules.keep
