"""Which failures bring an address on the suppression list: the whole table."""

import pytest
from msgspec.structs import replace

from engine.delivery.suppressing import suppressed_for
from engine.model.claim import Claim, ClaimedEntry
from engine.model.outcome import Outcome
from engine.settings.settings import Dsn, Settings, Suppression

KEEP = 30 * 86_400.0
SETTINGS = Settings(
    hostname="relay.example.net", dsn=Dsn(postmaster="Ops@example.org"), suppression=Suppression(enabled=True)
)
NO_USER = Outcome.of_reply(550, "5.1.1 no such user", host="mx.example.org", phase="RCPT", cause="reply")
DELIVERED = Outcome.of_reply(250, "2.0.0 ok", phase="reply", cause="reply")


def found(
    outcome: Outcome, recipient: str = "bob@example.org", sender: str = "ann@example.net", **rules: object
) -> object:
    entry = ClaimedEntry(number=1, recipient=recipient, attempt=1, attempts=0, expires=1.0)
    claim = Claim(
        message=1, sender=sender, size=1, arrived=0.0, eight_bit=False, smtputf8=False, destination="example.org",
        entries=(entry,),
    )  # fmt: skip
    settings = replace(SETTINGS, suppression=replace(SETTINGS.suppression, **rules))
    return suppressed_for(claim, entry, outcome, settings)


@pytest.mark.parametrize("text", ["5.1.1 no such user", "5.1.6 moved", "5.1.10 null MX"])
def test_what_is_said_of_the_address_brings_it_on_the_list(text: str) -> None:
    assert found(Outcome.of_reply(550, text, phase="RCPT", cause="reply")) == KEEP


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.of_reply(550, "5.7.1 policy", phase="RCPT", cause="reply"),
        Outcome.of_reply(550, "no such user", phase="RCPT", cause="reply"),
        Outcome.of_reply(450, "4.1.1 later", phase="RCPT", cause="reply"),
        Outcome.of_reply(450, "5.1.1 which is no such code", phase="RCPT", cause="reply"),
        replace(NO_USER, phase="DATA"),  # of the message, and maybe of another recipient
        replace(NO_USER, phase="MAIL"),
        replace(NO_USER, kind="transient"),  # 552 at RCPT, say
        replace(NO_USER, is_named=True),
        replace(NO_USER, cause="dns"),
        Outcome.permanent("this domain takes no mail", enhanced="5.1.10", cause="dns"),
        Outcome.permanent("delivery time expired; the last try: 450 4.1.1", enhanced="5.4.7"),
        Outcome.permanent("bounced by oncall", enhanced="5.7.0"),
    ],
)
def test_nothing_else_does(outcome: Outcome) -> None:
    assert found(outcome) is None


def test_nobody_who_is_spared() -> None:
    assert found(NO_USER, sender="") is None
    assert found(NO_USER, recipient="OPS@example.org") is None
    assert found(NO_USER, recipient="Postmaster@relay.example.net") is None
    assert found(NO_USER, recipient="postmaster@example.org") == KEEP


def test_a_delivery_takes_it_off() -> None:
    assert found(DELIVERED) == 0.0
    assert found(DELIVERED, sender="") == 0.0


def test_the_settings_say_whether_which_and_for_how_long() -> None:
    assert found(NO_USER, enabled=False) is None
    assert found(DELIVERED, enabled=False) is None
    assert found(NO_USER, codes=()) is None
    assert found(NO_USER, codes=("5.2.1",)) is None
    assert found(NO_USER, keep=3600.0) == 3600.0
