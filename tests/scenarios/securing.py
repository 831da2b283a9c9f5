"""What the scenarios of TLS stand on: who is trusted, and what a relayer's transcript says."""

from pathlib import Path

import pytest

from engine.sandbox.internet import Internet
from engine.settings.kinds import Tls
from engine.settings.settings import DestinationTls, TlsRules
from tests.scenarios.relaying import Relay


@pytest.fixture
def rules(internet: Internet, tmp_path: Path) -> TlsRules:
    """The default rules, with the sandbox's authority in place of the system's."""
    path = tmp_path / "authority.pem"
    path.write_bytes(internet.certificates.authority_pem)
    return TlsRules(ca_file=path)


def level(domain: str, level: Tls) -> tuple[DestinationTls, ...]:
    """The setting that mail to a domain is secured so."""
    return (DestinationTls(domain=domain, level=level),)


async def said(relay: Relay) -> str:
    """The transcript of the relayer that ended last."""
    last = max(relay.engine.smarthost.ended, key=lambda relayer: relayer.id)
    view = await relay.client.transcript(last.id)
    return "\n".join(line.text for line in view.lines)


async def why_kept(relay: Relay) -> str:
    """The outcome of the one entry that still waits, which no exchange has seen in the clear."""
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert entry.last.kind == "transient"
    for exchange in relay.internet.exchanges.values():
        assert not any(line.startswith(("MAIL", "RCPT", "DATA")) for _, line in exchange.commands)
    return entry.last.line
