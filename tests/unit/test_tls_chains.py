"""The authorities of a system, in a file or in a directory, as a chain is looked at after the handshake."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from engine.tls import contexts
from engine.tls.chains import by_authorities
from tests.unit.test_tls_dane import NAME, chain_of


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this system keeps its authorities: it has no file of them."""
    directory = tmp_path / "certs"
    directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    contexts._verifying.cache_clear()
    yield directory
    contexts._verifying.cache_clear()


def test_the_authorities_of_a_directory_are_read(directory: Path) -> None:
    """OpenSSL reads only those that a handshake needs: one that is looked at later needs the others too."""
    authority, other = trustme.CA(), trustme.CA()
    with_words = "Autorität, as `openssl x509 -text` shows it\n".encode() + authority.cert_pem.bytes() + b"\n"
    (directory / "12345678.0").write_bytes(with_words)
    (directory / "00000000.0").write_text("no certificate")
    (directory / "README").write_text("nor this")
    other.cert_pem.write_to_path(str(directory / "other.pem"))  # not by its hash: OpenSSL would not find it
    assert by_authorities(chain_of(authority), NAME, None) == ""
    assert "does not lead to a trusted one" in by_authorities(chain_of(other), NAME, None)


def test_where_there_are_no_authorities_nothing_is_proved(directory: Path) -> None:
    assert by_authorities(chain_of(trustme.CA()), NAME, None).endswith("a trusted one: there are none")


def test_a_file_of_authorities_is_read_in_place_of_the_systems(directory: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "12345678.0"))
    named = directory / "named.pem"
    trustme.CA().cert_pem.write_to_path(str(named))
    assert "does not lead to a trusted one" in by_authorities(chain_of(authority), NAME, named)


def test_authorities_that_cannot_be_read_are_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        by_authorities(chain_of(trustme.CA()), NAME, tmp_path / "none")
