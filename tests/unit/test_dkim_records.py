"""What the DNS is to have of a key, and what is said of what it has."""

from pathlib import Path

import pytest
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT
from dns.zone import from_text

from engine.dkim.keys import Key, read_key
from engine.dkim.records import STRING, judged, record_of, zone_lines
from tests.unit.dkim_keys import ed25519, rsa2048


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return read_key(ed25519(tmp_path))


def test_a_zone_file_takes_the_lines_as_they_are(tmp_path: Path) -> None:
    for setting in (rsa2048(tmp_path), ed25519(tmp_path), rsa2048(tmp_path, selector="long", bits=4096)):
        made = read_key(setting)
        zone = from_text(
            "\n".join(("$TTL 300", *zone_lines(made))), origin="example.org.", check_origin=False, relativize=False
        )
        ((name, _, record),) = zone.iterate_rdatas(RdataType.TXT)
        assert name.to_text() == f"{setting.record}."
        assert isinstance(record, TXT)
        assert b"".join(record.strings).decode() == record_of(made)
        assert max(map(len, record.strings)) <= STRING
        assert judged(made, [b"".join(record.strings)]) == (True, "our key")


def test_an_rsa_key_may_stand_there_without_its_kind(tmp_path: Path) -> None:
    made = read_key(rsa2048(tmp_path))
    assert judged(made, [record_of(made).replace("k=rsa; ", "").replace("v=DKIM1; ", "").encode()])[0]


@pytest.mark.parametrize(
    ("was", "instead", "said"),
    [
        ("", "", "our key"),
        ("k=", "h=sha1:sha256; s=email; t=s; n=a note; k=", "our key"),
        ("; p=", "; p= \t", "our key"),
        ("k=", "t=y:s; k=", "our key, but for tests (t=y)"),
        ("k=", "h=sha1; k=", "our key, but not for sha256: v=DKIM1; h=sha1;"),
        ("k=", "s=tlsrpt; k=", "our key, but not for mail: v=DKIM1; s=tlsrpt;"),
        ("k=ed25519; ", "", "another key than ours"),
        ("v=DKIM1", "v=DKIM2", "no key of DKIM1: v=DKIM2"),
        ("v=DKIM1", "spf", "no key: spf"),
        ("; p=", "; p=*", "no key: v=DKIM1"),
        ("; p=", "; q=", "no key: v=DKIM1"),
        ("v=DKIM1", "\x1b[2J", "no key: \\x1b[2J"),
    ],
)
def test_what_stands_in_the_dns_is_judged(key: Key, was: str, instead: str, said: str) -> None:
    is_well, text = judged(key, [record_of(key).replace(was, instead, 1).encode()])
    assert text.startswith(said)
    assert is_well == (text == "our key")


def test_a_key_that_is_not_there_or_is_revoked_or_another_is_told(tmp_path: Path, key: Key) -> None:
    other = record_of(read_key(ed25519(tmp_path, selector="other"))).encode()
    assert judged(key, []) == (False, "missing: the DNS has no TXT record there")
    assert judged(key, [b"v=DKIM1; k=ed25519; p="]) == (False, "revoked: its p= is empty (RFC 6376 3.6.1)")
    assert judged(key, [other])[1].startswith("another key than ours: v=DKIM1; k=ed25519; p=")
    assert judged(key, [other, other])[1].startswith("2 TXT records stand there")
    assert not any(judged(key, [bytes([each]) * 300])[0] for each in range(256))
