"""What to do about what an upstream host says, by its words."""

import pytest

from engine.delivery.remedy import remedy
from engine.model.outcome import Outcome
from engine.settings.settings import Route

UPSTREAM = Route(domain="*", host="smtp.provider.example", tls="required", username="relay@shop.example")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (554, "5.2.252 SendAsDenied; relay@shop.example not allowed to send as boss@shop.example"),
        (550, "5.7.60 SMTP; Client does not have permissions to send as this sender"),
        (553, "5.7.1 <boss@shop.example>: Sender address rejected: not owned by user relay@shop.example"),
        (554, "Message rejected: Email address is not verified. The following identities failed the check"),
    ],
)
def test_a_sender_that_the_host_will_not_have_is_to_be_allowed_there_or_put_right_here(code: int, text: str) -> None:
    said = Outcome.of_reply(code, text)
    todo = remedy(UPSTREAM, said, "boss@shop.example")
    assert "have whoever keeps the login relay@shop.example there let it send as boss@shop.example" in todo
    assert "[[rewrite]]" in todo
    assert "as this sender" in remedy(UPSTREAM, said)
    assert remedy(Route(domain="*", host="inside.example"), said) == ""  # nobody has logged in


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (421, "4.7.28 Daily user sending limit exceeded, try again later"),
        (550, "5.4.5 Daily user sending quota exceeded"),
        (554, "5.2.0 SubmissionQuotaExceededException; submission quota exceeded"),
        (550, "5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"),
    ],
)
def test_a_host_that_has_enough_of_us_is_to_be_asked_less_of(code: int, text: str) -> None:
    assert "[[limit]]" in remedy(UPSTREAM, Outcome.of_reply(code, text))


@pytest.mark.parametrize(
    "said",
    [
        Outcome.of_reply(550, "5.1.1 no such user"),
        Outcome.of_reply(552, "5.3.4 message size exceeds fixed limit"),
        Outcome.of_reply(452, "4.2.2 mailbox of bob is over its limit"),
        Outcome.of_reply(250, "2.0.0 queued; your daily limit is near"),
        Outcome.transient("the connection was lost"),
    ],
)
def test_of_all_else_nothing_is_made_up(said: Outcome) -> None:
    assert remedy(UPSTREAM, said, "ann@shop.example") == ""


def test_what_is_wrong_before_any_mail_is_a_matter_of_the_route() -> None:
    assert ".username" in remedy(UPSTREAM, Outcome.of_reply(535, "5.7.8 wrong", cause="login"))
    assert ".ca_file" in remedy(UPSTREAM, Outcome.transient("self-signed certificate", cause="tls"))
    assert ".port" in remedy(UPSTREAM, Outcome.transient("connection refused", cause="connect"))
