"""What is demanded: in words, and whether a session opened for one domain may carry the mail of another."""

from pathlib import Path

import pytest

from engine.tls.dane import Dane, Tlsa
from engine.tls.demand import TlsDemand

DANE = Dane(owner="_25._tcp.mx.example.org", records=(Tlsa(3, 1, 1, b"x" * 32),), names=("mx.example.org",))
OTHER = Dane(owner=DANE.owner, records=DANE.records, names=("mx.example.org", "example.org"))

none, opportunistic, required, verified = (
    TlsDemand(level="none"), TlsDemand(), TlsDemand(level="required", why="a"), TlsDemand(level="verified", why="b")
)  # fmt: skip
by_dane = TlsDemand(level="verified", dane=DANE)


@pytest.mark.parametrize(
    ("mail", "session", "met"),
    [
        (none, opportunistic, True),
        (opportunistic, none, False),
        (opportunistic, verified, True),
        (required, opportunistic, False),
        (required, verified, True),
        (required, by_dane, True),
        (verified, required, False),
        (verified, TlsDemand(level="verified", why="c"), True),
        (verified, by_dane, False),
        (by_dane, verified, False),
        (by_dane, TlsDemand(level="verified", dane=DANE, why="c"), True),
        (by_dane, TlsDemand(level="verified", dane=OTHER), False),
        (verified, TlsDemand(level="verified", ca_file=Path("/other.pem")), False),
    ],
)
def test_a_session_carries_what_it_is_safe_enough_for(mail: TlsDemand, session: TlsDemand, met: bool) -> None:
    assert mail.is_met_by(session) == met


def test_authorities_count_unless_dane_stands_for_them() -> None:
    both = Dane(owner=DANE.owner, records=DANE.records, names=DANE.names, and_authorities=True)
    assert verified.by_authorities
    assert not by_dane.by_authorities
    assert TlsDemand(level="verified", dane=both).by_authorities
    assert not required.by_authorities
    assert (required.line, opportunistic.line) == ("TLS is required: a", "TLS is used where it is offered")
