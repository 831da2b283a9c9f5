"""A message that is made of parts says what they say, and nothing else, whatever stands in them."""

import json
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.address import AddressError, parse_path
from engine.intake.drop.dropped import Dropped
from engine.intake.errors import Unfit
from engine.intake.http.posted import composed, with_envelope
from engine.intake.http.problem import Problem
from engine.intake.preparation import Arrived
from engine.settings.settings import Smtp

ODD = st.text(alphabet=st.sampled_from("aZ0 \t\r\n\x00\x0b\x1c\x85\u2028\ud800ä漢,;:<>()[]\"'\\=?@.-_*"), max_size=40)
FINE = st.text(alphabet=st.sampled_from("aZ0 ä漢\u200b,;:()[]\"'\\=?@.-_*"), max_size=40)  # in a line
LINE = st.one_of(FINE, FINE, FINE, FINE, FINE, FINE, FINE, FINE, FINE, ODD)
TEXT = st.one_of(FINE, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
LOCAL = st.text(alphabet="abcdef0123!#$%'*+-/=?^_`{|}~ä", min_size=1, max_size=20)
ADDRESS = LOCAL.map(lambda local: f"{local}@example.org")
ENTRY = st.one_of(ADDRESS, st.tuples(FINE, ADDRESS).map(lambda pair: f"{pair[0]} <{pair[1]}>"))
LETTER = st.fixed_dictionaries(
    {"from": ENTRY, "to": st.lists(st.one_of(ENTRY, ENTRY, ENTRY, ENTRY, ENTRY, ODD), min_size=1, max_size=3)},
    optional={
        "bcc": st.lists(ADDRESS, max_size=3),
        "subject": LINE,
        "text": TEXT,
        "html": TEXT,
        "headers": st.dictionaries(st.sampled_from(["Reply-To", "X-A", "X-B", "List-Id"]), LINE, max_size=3),
    },
)


def arrived(body: bytes) -> Arrived:
    return Dropped(content=composed(body), origin="http", key=None).arrived(Smtp())


def address_in(entry: str) -> str:
    return str(parse_path((entry[entry.index("<") + 1 : -1] if "<" in entry else entry).strip()))


@settings(max_examples=300)
@given(LETTER)
def test_what_is_made_goes_to_those_who_are_named_and_has_the_fields_that_were_given(letter: dict[str, Any]) -> None:
    try:
        made = arrived(json.dumps(letter).encode())
    except (Problem, Unfit):
        return
    named = list(dict.fromkeys(address_in(entry.strip()) for entry in letter["to"] + letter.get("bcc", [])))
    assert [str(each) for each in made.recipients] == named
    assert str(made.sender) == address_in(letter["from"].strip())
    wanted = {"x-envelope-from", "x-envelope-to", "from", "mime-version", "content-type"}
    if not (letter.get("html") and letter.get("text")):
        wanted.add("content-transfer-encoding")
    wanted |= {name for name in ("to", "subject") if letter.get(name)}
    wanted |= {name.lower() for name in letter.get("headers", {})}
    assert {field.name.decode() for field in made.header.fields} == wanted
    told = message_from_bytes(made.header.content)
    if not letter.get("html"):
        text = told.get_payload(decode=True)
        assert isinstance(text, bytes)
        assert "".join(text.decode().split()) == "".join(letter.get("text", "").split())


@given(st.one_of(st.binary(max_size=200), st.text(max_size=50).map(str.encode), st.just(b"[" * 100_000)))
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem):
        composed(body)


def test_what_stands_beside_a_message_is_one_field_each() -> None:
    with pytest.raises(Problem, match="control character"):
        with_envelope(b"", {"X-Envelope-To": "a@b.example\nBcc: c@d.example"})
    content = with_envelope(b"Subject: x\r\n\r\n", {"X-Envelope-From": "<>", "X-Envelope-To": '"a,b"@b.example'})
    found = Dropped(content=content, origin="http", key=None).arrived(Smtp())
    assert (str(found.sender), [str(each) for each in found.recipients]) == ("", ['"a,b"@b.example'])


def test_an_address_beyond_ascii_needs_no_encoding() -> None:
    made = arrived(json.dumps({"from": "kä@example.org", "to": "Ä <bö@example.org>", "text": "x"}).encode())
    assert [str(each) for each in made.recipients] == ["bö@example.org"]
    with pytest.raises(AddressError):
        parse_path("nobody")
