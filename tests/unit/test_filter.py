"""The filter's language: what it reads, what it refuses and how it says so."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.base.text import clean
from engine.model.filter import Filter, FilterError, Term
from engine.queue.sqlite.connection import folded_like


def only(text: str) -> Term:
    (term,) = Filter.parse(text).terms
    return term


def test_empty_text_selects_everything() -> None:
    assert Filter.parse("") == Filter.parse("  \t ") == Filter.all()


def test_terms_stand_apart_by_spaces_in_their_order() -> None:
    terms = Filter.parse("domain=example.org  !state=held bob").terms
    assert [(term.field, term.op, term.value, term.inverted) for term in terms] == [
        ("domain", "=", "example.org", False),
        ("state", "=", "held", True),
        ("text", "~", "bob", False),
    ]


def test_a_value_with_spaces_stands_in_double_quotes() -> None:
    assert only('subject~"two words"').value == "two words"
    assert only(r'"a \"quoted\" word and a \\"').value == 'a "quoted" word and a \\'


def test_the_null_sender_is_named() -> None:
    assert only("from=<>").value == "<>"


def test_ids_name_messages_and_entries() -> None:
    assert only("id=1,2.1").ids == ((1, 0), (2, 1))
    assert only("id=48213.2").ids == ((48213, 2),)


def test_of_ids_is_what_parse_reads() -> None:
    assert Filter.of_ids([1, "2.1"]) == Filter.parse("id=1,2.1")


def test_of_ids_without_ids_is_refused_rather_than_everything() -> None:
    with pytest.raises(FilterError, match="no ids"):
        Filter.of_ids([])


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("tries>3", 3),
        ("age>2h", 7200),
        ("age<10m", 600),
        ("age>1d12h", 129600),
        ("size>1MiB", 2**20),
        ("size>1.5kib", 1536),
        ("size<2MB", 2_000_000),
        ("size<10", 10),
    ],
)
def test_amounts_are_read_with_their_units(text: str, amount: float) -> None:
    assert only(text).amount == amount


def test_fields_are_read_in_any_case() -> None:
    assert only("State=HELD") == only("state=held")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("domain=München.Example", "domain=xn--mnchen-3ya.example"),
        ("domain=other.example.", "domain=other.example"),
        ("!domain=münchen.example.", "!domain=xn--mnchen-3ya.example"),
        ("domain=*.münchen.example", "domain=*.xn--mnchen-3ya.example"),
        ("to=Bob@münchen.example", "to=Bob@xn--mnchen-3ya.example"),
        ("from=jürgen@münchen.example.", "from=jürgen@xn--mnchen-3ya.example"),
        ("to=*@[192.0.2.1]", "to=*@[192.0.2.1]"),
        ("to=jürgen*", "to=jürgen*"),
        ("domain=*", "domain=*"),
        ("domain=.", "domain=."),
    ],
)
def test_a_domain_may_be_written_as_people_write_it(text: str, meant: str) -> None:
    assert str(Filter.parse(text)) == meant


def test_an_address_with_an_equals_sign_is_free_text() -> None:
    assert only("bounce+bob=example.org@lists.example").field == "text"


@pytest.mark.parametrize(
    ("text", "what", "allowed"),
    [
        ("domain=mün*.example", "stands for whole labels", "domain=*.example.org"),
        ("to=bob@ü_.example", "not an international domain name", "to=bob@example.org"),
        ("!domain:gmail.example", '"domain" does not go with ":"', "domain=example.org"),
        ("state!=held", '"state" does not go with "!="', "! before it inverts it"),
        ("Domain==x", '"domain" does not go with "=="', "in double quotes"),
        ("to!~bob", '"to" does not go with "!~"', "to=bob@example.org"),
        ("colour=red", 'there is no field "colour"', "domain, to, from"),
        ("state=lost", "no such state", "waiting or relaying or held or due"),
        ("state~held", '"state" does not go with "~"', "state=waiting"),
        ("to=", "a value is missing", "to=bob@example.org"),
        ('""', "a value is missing", "a word by itself"),
        ("!", "a value is missing", "a word by itself"),
        ("!!held", "inverted more than once", 'one "!"'),
        ("id=12.x", "not the number", "id=48213.2"),
        ("id=0", "not the number", "id=48213"),
        ("tries>many", "not a whole number", "tries>3"),
        ("tries>=3", "not a whole number", "tries>3"),
        ("age>2", "not a duration", "age>2h"),
        ("size>big", "not a size", "size>1MiB"),
        ('subject~"open', "not closed", "second"),
        ('subject~"a"b', "behind the closing quote", "a space"),
        ('subject~a"b', "double quote inside", "quotes around all of it"),
        ("to=a\x00b", "control character (U+0000)", "text without"),
        ("to=a\udc80b", "control character (U+DC80)", "text without"),
        ("to=*a*b*c*d*e*f*g*h*i", 'more than 8 "*"', "to=bob@"),
        ("x " * 51, "more than 50 terms", "fewer"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_is_allowed(text: str, what: str, allowed: str) -> None:
    with pytest.raises(FilterError) as raised:
        Filter.parse(text)
    assert what in raised.value.what
    assert allowed in raised.value.allowed
    assert what in str(raised.value)


def read(text: str) -> Filter | FilterError:
    try:
        return Filter.parse(text)
    except FilterError as error:
        return error


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    result = read(text)
    if isinstance(result, Filter):
        assert Filter.parse(str(result)) == result
    else:
        assert result.what
        assert clean(str(result)) == str(result)


VALUES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
TERMS = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "!"]),
        st.sampled_from(["domain", "to", "from", "subject", "reason"]),
        st.sampled_from("=~"),
        (VALUES | st.text("üB*.@", min_size=1, max_size=400)).map(
            lambda value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        ),
    ),
    st.sampled_from(["id=1,2.3", "!state=due", "tries<4", "age>2h30m", "size>4KiB", '"!not"', '"to=x"', r"back\slash"]),
)


@given(st.lists(TERMS, max_size=6).map(" ".join))
@example('domain="="')
@example('subject~"~b"')
def test_a_filter_written_out_parses_to_itself(text: str) -> None:
    result = read(text)
    if isinstance(result, Filter):
        assert Filter.parse(str(result)) == result
    else:
        # The only thing a value may have too much of, and the only one that it may have to be.
        assert "*" in result.what or "not an international domain name" in result.what


@given(st.lists(st.text("aÄb*\n", max_size=6), max_size=4), st.text("aäbAB\n", max_size=12))
def test_an_asterisk_stands_for_any_text_in_every_script(pattern: list[str], value: str) -> None:
    written = "*".join(pattern)
    matches = re.fullmatch(".*".join(map(re.escape, written.casefold().split("*"))), value.casefold(), re.DOTALL)
    assert folded_like(written, value) == (matches is not None)


def test_a_pattern_takes_no_longer_for_a_text_made_against_it() -> None:
    assert not folded_like("*a" * 100 + "*ö", "a" * 100_000)


@pytest.mark.parametrize(
    ("before", "now"),
    [("reason~quota", "reply~quota"), ("!Reason=421*", "!reply=421*"), ('why="450 later"', 'group="450 later"')],
)
def test_what_terms_were_called_before_still_does(before: str, now: str) -> None:
    assert Filter.parse(before) == Filter.parse(now)
    assert str(Filter.parse(before)) == now


def test_a_term_by_its_old_name_is_refused_as_by_its_new_one() -> None:
    with pytest.raises(FilterError, match=r"reply=421\*"):
        Filter.parse("reason:421")
