"""Mail of domains with keys is signed, and by whom; what cannot be waits, is refused, or goes without and says so."""

import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from engine.base.address import parse_path
from engine.dkim.keys import KeyProblem, read_key
from engine.dkim.result import CannotSign
from engine.dkim.signature import MOST_SIGNED
from engine.dkim.signer import Signer
from engine.intake.content import canonical
from engine.intake.drop.dropped import Dropped
from engine.intake.errors import Refused, Unfit
from engine.intake.preparation import Preparation
from engine.intake.signing import signed
from engine.intake.smtp.submitted import Submitted
from engine.model.message import NewMessage
from engine.settings.kinds import Unsigned
from engine.settings.settings import DkimKey, Smtp
from tests.clock import FakeClock
from tests.unit.dkim_keys import ed25519, records, rsa2048, signatures_in, unsigned_part, verified

BODY = b"\r\nHow are you?\r\n"
LETTER = b"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n" + BODY


def signer(*keys: DkimKey, unsigned: Unsigned = "refuse") -> Signer:
    made = Signer(keys, unsigned, FakeClock(time.time()))
    made.look()
    return made


def on_top(content: bytes, by: Signer) -> bytes:
    return signed(content, by).fields + content


@pytest.mark.parametrize(
    "content",
    [
        LETTER,
        LETTER.replace(b"Subject: hello", b"Subject:hello\r\n\tand  more \r\n   of it\t"),
        LETTER.replace(b"Subject", b"sUBJECT"),
        LETTER.replace(b"hello", "grüße".encode()) + b"\xff\xfe raw\r\n",
        LETTER + b"\r\n\r\n\r\n",
        LETTER.replace(BODY, b"\r\n"),
        LETTER.replace(BODY, b"\r\n\r\n\r\n"),
        LETTER.replace(BODY, b""),
        LETTER.replace(BODY, b"\r\n starts with a blank\r\n. and a dot \t\r\n"),
        LETTER + b"trailing blanks  \t \r\n",
        LETTER + b"x" * 60_000 + b"\r\n",
        b"To: one@example.net\r\n" + LETTER + b"From: in the body\r\n",
        LETTER.replace(b"To:", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nX-Other: y\r\nTo:"),
        b"Subject: " + b"long " * 5000 + b"\r\n" + LETTER,
        b"DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=AAAA; b=AAAA\r\n" + LETTER,
    ],
)
def test_both_signatures_are_right_whatever_the_message_is_like(tmp_path: Path, content: bytes) -> None:
    keys = rsa2048(tmp_path), ed25519(tmp_path)
    made = on_top(content, signer(*keys))
    assert verified(made, records(*keys)) == ["rsa._domainkey.example.org", "ed._domainkey.example.org"]
    assert made.endswith(content)
    lines = signed(content, signer(*keys)).fields.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert all(line[:1] == b" " for line in lines[1:-1] if not line.startswith(b"DKIM-Signature: "))


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Signer, dict[str, str]]]:
    """One key for many examples."""
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        key = ed25519(Path(folder))
        yield signer(key), records(key)


PIECES = [b" ", b"\t", b"\r\n", b"a", b"b  c", b";", b":", b"=", b"\xc3\xa4", b".", b"\r\n\r\n", b"b=abc", b"-"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


@given(st.lists(st.sampled_from(PIECES[:2] + PIECES[3:10]), max_size=12).map(b"".join), TEXT)
def test_whatever_stands_in_subject_and_body_it_verifies(
    kept: tuple[Signer, dict[str, str]], subject: bytes, body: bytes
) -> None:
    by, known = kept
    content = canonical(b"Subject: " + subject + b"\r\nFrom: ann@example.org\r\n\r\n" + body)
    assert verified(on_top(content, by), known) == ["ed._domainkey.example.org"]


@given(TEXT, TEXT)
def test_a_body_that_was_changed_does_not_verify(
    kept: tuple[Signer, dict[str, str]], body: bytes, other: bytes
) -> None:
    by, known = kept
    head = b"From: ann@example.org\r\n\r\n"
    fields = signed(canonical(head + body + b"."), by).fields
    assert verified(fields + canonical(head + other + b"!"), known) == []


def test_a_from_that_is_added_breaks_the_signature(tmp_path: Path) -> None:
    key = ed25519(tmp_path)
    made = on_top(LETTER, signer(key))
    assert verified(made, records(key))
    assert not verified(b"From: eve@example.com\r\n" + made, records(key))
    assert not verified(made.replace(b"Subject: hello", b"Subject: other"), records(key))
    assert verified(b"X-Other: y\r\n" + made, records(key))


@pytest.mark.parametrize(
    ("author", "domain"),
    [
        ("ann@example.org", "example.org"),
        ("ann@EXAMPLE.org", "example.org"),
        ("ann@a.b.example.org", "example.org"),
        ("ann@news.example.org", "news.example.org"),
        ("ann@x.news.example.org", "news.example.org"),
        ("Ann (of b@example.com) <ann@example.org>", "example.org"),
        ("ann@bücher.example", "xn--bcher-kva.example"),
        ("friends: ann@example.org, bob@example.com;", "example.org"),
        ("ann@example.org, bob@example.com", "example.org"),
        ("ann..b@example.org", "example.org"),
        ("Ann <ann smith@example.org>", "example.org"),
        ('"ann@example.com"@example.org', "example.org"),
        ("root@my_host.example.org", "example.org"),
        ("ann@example.org.", "example.org"),
        ("ann@notexample.org", ""),
        ("ann@org", ""),
        ("bob@example.com, ann@example.org", ""),
        ("ann@[192.0.2.1]", ""),
        ("undisclosed:;", ""),
        ("", ""),
        ("nobody", ""),
    ],
)
def test_the_authors_domain_signs_or_the_nearest_above_it(tmp_path: Path, author: str, domain: str) -> None:
    keys = [ed25519(tmp_path, name) for name in ("example.org", "news.example.org", "xn--bcher-kva.example")]
    made = on_top(f"From: {author}\r\n\r\nbody\r\n".encode(), signer(*keys))
    assert verified(made, records(*keys)) == ([f"ed._domainkey.{domain}"] if domain else [])
    assert signatures_in(made) == (1 if domain else 0)


def test_mail_of_nobody_and_of_domains_without_keys_goes_as_it_is(tmp_path: Path) -> None:
    by = signer(ed25519(tmp_path))
    twice = b"From: a@b.example\r\n" * 2 + BODY
    for content in (b"Subject: x\r\n\r\nFrom: ann@example.org\r\n", b"\r\nbody\r\n", twice):
        assert signed(content, by).fields == b""
        assert signed(content, by).remark == ""
    assert signed(LETTER, Signer((), "refuse", FakeClock())).fields == b""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (LETTER + b"", ""),
        (b"From: eve@example.com\r\n" + LETTER, "it has 2 From fields"),
        (LETTER.replace(b"<ann@example.org>", b"<ann@example.org"), "its From field cannot be read"),
        (LETTER.replace(b"Ann <", b'"Ann <'), "its From field cannot be read"),
        (LETTER.replace(BODY, b"no field\r\n" + BODY), "behind its header field 3 something stands that is none"),
        (LETTER.replace(b"Subject", b"Subj\xc3\xa9ct"), "behind its header field 2 something stands that is none"),
        (b"To: bob@example.net\r\n" * MOST_SIGNED + LETTER, "header fields would have to be signed"),
    ],
)
def test_a_message_that_never_can_be_signed_is_refused_for_good_or_goes_without(
    tmp_path: Path, content: bytes, why: str
) -> None:
    key = ed25519(tmp_path)
    strict, lax = signer(key), signer(key, unsigned="send")
    if not why:
        assert signed(content, strict).fields
        return
    with pytest.raises(CannotSign, match=why) as refused:
        signed(content, strict)
    assert refused.value.is_permanent
    assert signed(content, lax).fields == b""
    assert signed(content, lax).remark.startswith("goes unsigned: ")
    assert why in signed(content, lax).remark


def preparation(by: Signer) -> Preparation:
    return Preparation("relay.example", sign=lambda content: signed(content, by))


def by_smtp(content: bytes, by: Signer, login: str = "") -> NewMessage:
    submitted = Submitted(
        chunks=(b"\r\n" + content + b".\r\n",),
        sender=parse_path("a@example.com"),
        recipients=(parse_path("b@example.net"),),
        protocol="ESMTP",
        greeted="client.example",
        peer="192.0.2.1",
        login=login,
    )
    return submitted.message(preparation(by), Smtp(), 0.0)


def by_drop(content: bytes, by: Signer) -> NewMessage:
    dropped = Dropped(content=content, origin="drop a.eml", key="k")
    return dropped.message(preparation(by), Smtp(), 0.0)


@pytest.mark.parametrize("way", [by_smtp, by_drop])
def test_signatures_go_on_top_of_the_trace_and_nothing_else_changes(tmp_path: Path, way: type[NewMessage]) -> None:
    key = ed25519(tmp_path)
    content = b"Bcc: eve@example.org\n" + LETTER.replace(b"\r\n", b"\n")
    made = way(content, signer(key)).content  # type: ignore[call-arg, arg-type]
    assert made.startswith(b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/simple; d=example.org;\r\n")
    assert unsigned_part(made) == way(content, signer()).content  # type: ignore[call-arg, arg-type]
    assert verified(made, records(key))


def test_what_a_submission_lacks_is_added_before_it_is_signed(tmp_path: Path) -> None:
    key = ed25519(tmp_path)
    made = by_smtp(LETTER, signer(key), login="ann").content
    assert verified(made, records(key))
    assert not verified(made.replace(b"Message-ID: <", b"Message-ID: <x"), records(key))


def test_what_waits_and_what_is_refused_is_said_to_each_as_it_understands(tmp_path: Path) -> None:
    key = ed25519(tmp_path)
    by = signer(key)
    twice = b"From: eve@example.com\r\n" + LETTER
    with pytest.raises(Refused) as refused:
        by_smtp(twice, by)
    assert refused.value.reply.encoded() == b"554 5.6.0 Cannot be signed (DKIM): it has 2 From fields\r\n"
    with pytest.raises(Unfit, match="DKIM: cannot be signed: it has 2 From fields"):
        by_drop(b"X-Envelope-From: ann@example.org\r\n" + twice, by)
    key.key.unlink()
    by.look()
    with pytest.raises(Refused) as refused:
        by_smtp(LETTER, by)
    assert refused.value.reply.code == 451
    assert str(tmp_path) not in refused.value.reply.text
    assert str(key.key) in refused.value.detail
    with pytest.raises(CannotSign) as waits:
        by_drop(LETTER, by)
    assert not waits.value.is_permanent
    lax = signer(key, unsigned="send")
    assert by_smtp(LETTER, lax).content == by_smtp(LETTER, signer()).content
    assert "No such file" in by_smtp(LETTER, lax).remark
    assert "No such file" in by_drop(LETTER, lax).remark


def test_a_file_that_changes_is_read_again_and_all_keys_of_a_domain_sign_or_none(tmp_path: Path) -> None:
    keys = rsa2048(tmp_path), ed25519(tmp_path)
    other = ed25519(tmp_path, "example.com")
    by = signer(*keys, other)
    old = records(*keys)
    assert by.trouble == ""
    fresh = ed25519(tmp_path)  # written in the place of the one before
    assert len(verified(on_top(LETTER, by), old)) == 2  # nothing is read where mail is signed
    assert by.look() == ()
    assert len(verified(on_top(LETTER, by), records(keys[0], fresh))) == 2
    fresh.key.write_text("no key")
    (problem,) = by.look()
    assert problem.startswith(f"dkim[1].key: {fresh.key} holds no key that can be read")
    assert by.trouble == f"mail of example.org is put off, since it cannot be signed: {problem}"
    with pytest.raises(CannotSign):
        signed(LETTER, by)
    assert signed(LETTER.replace(b"example.org", b"example.com"), by).fields
    ed25519(tmp_path)
    assert by.look() == ()
    assert by.trouble == ""
    assert signatures_in(on_top(LETTER, by)) == 2


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = signer(ed25519(tmp_path))
    reads: list[DkimKey] = []
    monkeypatch.setattr("engine.dkim.signer.read_key", reads.append)
    assert by.look() == ()
    assert reads == []
    assert signatures_in(on_top(LETTER, by)) == 1


def test_a_key_must_be_one_that_can_sign(tmp_path: Path) -> None:
    def why(pem: bytes) -> str:
        (tmp_path / "key").write_bytes(pem)
        with pytest.raises(KeyProblem, match="allowed is a private key in PEM") as refused:
            read_key(DkimKey(domain="example.org", selector="s", key=tmp_path / "key"))
        return str(refused.value)

    curve = ec.generate_private_key(ec.SECP256R1())
    assert "a key of another kind" in why(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    locked = BestAvailableEncryption(b"secret")
    assert "wants a passphrase" in why(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    assert "holds no key that can be read" in why(b"")
    assert "holds no key that can be read" in why(b"\xff\x1b[2J" * 100_000)
    assert "an RSA key of 4104 bits" in why(rsa2048(tmp_path, bits=4104).key.read_bytes())
    pem = rsa2048(tmp_path).key.read_bytes()
    assert "holds no key that can be read" in why(pem[: len(pem) // 2])


def test_a_huge_body_is_hashed_in_slices_that_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ed25519(tmp_path)
    by = signer(key)
    for size in (1, 2, 3, 7, 16, 17):
        monkeypatch.setattr("engine.dkim.signature._HASHED", size)
        for content in (LETTER, LETTER + b"\r\n" * 9, LETTER.replace(BODY, b"\r\n\r\n\r\n"), LETTER + b"more\r\n\r\n"):
            assert verified(on_top(content, by), records(key)), (size, content)


@pytest.mark.parametrize("line", [b"\r\n", b"x\r\n", b"y" * 998 + b"\r\n"])
def test_no_body_takes_long(tmp_path: Path, line: bytes) -> None:
    content = LETTER + line * (16 * 2**20 // len(line))
    by = signer(ed25519(tmp_path))
    began = time.process_time()
    assert signed(content, by).fields
    assert time.process_time() - began < 1.0


def test_several_mail_domains_do_not_share_a_signature(tmp_path: Path) -> None:
    keys = [ed25519(tmp_path, f"{name}.example") for name in "abc"]
    by = signer(*keys)
    made = [on_top(b"From: x@%b.example\r\n\r\n" % name, by) for name in (b"a", b"b", b"c")]
    assert all(one != other for one, other in pairwise(made))
    assert [verified(one, records(*keys)) for one in made] == [[f"ed._domainkey.{name}.example"] for name in "abc"]
