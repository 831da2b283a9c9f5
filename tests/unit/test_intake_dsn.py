"""The parameters of RFC 3461: what they mean is kept, what they do not allow is refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base import xtext
from engine.intake.smtp.command import SyntaxProblem
from engine.intake.smtp.dsn import OfMail, of_mail, of_recipient
from engine.model.message import NO_DSN_REQUEST, DsnRequest


def test_who_says_nothing_wishes_nothing() -> None:
    assert of_mail({"SIZE": "12"}) == OfMail()
    assert of_recipient({}) == NO_DSN_REQUEST


def test_what_is_said_is_kept_as_it_passes_on() -> None:
    assert of_mail({"RET": "full", "ENVID": "a+2Bb"}) == OfMail("FULL", "a+2Bb")
    assert of_recipient({"NOTIFY": "success,Delay", "ORCPT": "RFC822;Bob+20B@x.example"}) == DsnRequest(
        notify="SUCCESS,DELAY", orcpt="RFC822;Bob+20B@x.example"
    )


@pytest.mark.parametrize(
    ("notify", "success", "failure", "delay"),
    [
        ("", False, True, True),
        ("NEVER", False, False, False),
        ("SUCCESS", True, False, False),
        ("FAILURE,DELAY", False, True, True),
    ],
)
def test_wishes_include_what_was_named(notify: str, success: bool, failure: bool, delay: bool) -> None:
    dsn = DsnRequest(notify=notify)
    assert (dsn.include("SUCCESS"), dsn.include("FAILURE"), dsn.include("DELAY")) == (success, failure, delay)


def test_xtext_is_read_strictly() -> None:
    assert xtext.decoded("a+2Bb+3Dc+20d") == "a+b=c d"
    for wrong in ("a=b", "a b", "+2b", "+2", "+0A", "+7F", "+80", "é", "\x1b"):
        with pytest.raises(ValueError, match=r"xtext|printable"):
            xtext.decoded(wrong)


VALUES = st.one_of(st.none(), st.text(max_size=40), st.from_regex(r"[!-~]{1,600}", fullmatch=True))
NAMES = ["RET", "ENVID", "NOTIFY", "ORCPT", "SIZE"]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_values_are_read_or_refused_and_what_is_kept_can_go_on_the_wire(parameters: dict[str, str | None]) -> None:
    try:
        mail, recipient = of_mail(parameters), of_recipient(parameters)
    except SyntaxProblem:
        return
    for value in (mail.ret, mail.envid, recipient.notify, recipient.orcpt):
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value
        assert len(value) <= 500
