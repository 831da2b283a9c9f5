"""TLSA records: which can be used, and that no certificate a peer may send is taken on its word or breaks anything."""

import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from engine.tls.dane import Dane, Tlsa, fault, usable

NAME = "mx.example.org"

A_CA = x509.BasicConstraints(ca=True, path_length=None)
SIGNS = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True,
    content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
SIGNS_NO_CERTIFICATES = x509.KeyUsage(
    digital_signature=True, key_cert_sign=False, crl_sign=False,
    content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def der(pem: trustme.Blob) -> bytes:
    return x509.load_pem_x509_certificate(pem.bytes()).public_bytes(Encoding.DER)


def chain_of(authority: trustme.CA, name: str = NAME) -> list[bytes]:
    return [der(pem) for pem in authority.issue_cert(name).cert_chain_pems]


def dane(*records: Tlsa, names: tuple[str, ...] = (NAME,)) -> Dane:
    return Dane(owner="_25._tcp.mx.example.org", records=records, names=names)


def test_only_dane_ta_and_dane_ee_with_known_data_can_be_used() -> None:
    good = [Tlsa(3, 1, 1, b"x" * 32), Tlsa(2, 0, 2, b"x" * 64), Tlsa(3, 0, 0, b"x")]
    bad = [
        Tlsa(0, 1, 1, b"x" * 32), Tlsa(1, 1, 1, b"x" * 32), Tlsa(4, 1, 1, b"x" * 32), Tlsa(3, 2, 1, b"x" * 32),
        Tlsa(3, 1, 3, b"x" * 32), Tlsa(3, 1, 1, b"x" * 31), Tlsa(3, 1, 2, b"x" * 32), Tlsa(3, 0, 0, b""),
    ]  # fmt: skip
    assert usable([*bad, *good, *bad]) == tuple(good)


def test_of_two_digests_of_one_kind_the_stronger_counts() -> None:
    weak, strong, other = Tlsa(3, 1, 1, b"x" * 32), Tlsa(3, 1, 2, b"x" * 64), Tlsa(2, 1, 1, b"x" * 32)
    assert usable([weak, strong, other]) == (strong, other)


def test_an_anchor_that_the_record_holds_whole_need_not_be_sent() -> None:
    authority = trustme.CA()
    leaf, *_ = chain_of(authority)
    assert fault(dane(Tlsa(2, 0, 0, der(authority.cert_pem))), [leaf]) == ""


def test_an_anchor_sent_along_proves_nothing_that_it_has_not_signed() -> None:
    authority, thief = trustme.CA(), trustme.CA()
    anchor = der(authority.cert_pem)
    why = fault(dane(Tlsa(2, 0, 0, anchor)), [chain_of(thief)[0], anchor])
    assert "does not lead to a trusted one" in why


def test_a_certificate_that_is_no_authority_signs_nothing() -> None:
    """A host with any certificate under the anchor must not be able to make certificates for others."""
    authority = trustme.CA()
    mine = authority.issue_cert("other.example.org")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(mine.cert_chain_pems[0].bytes())
    now = datetime.datetime.now(datetime.UTC)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(_key(mine), hashes.SHA256())
    )
    sent = [forged.public_bytes(Encoding.DER), der(mine.cert_chain_pems[0]), der(authority.cert_pem)]
    assert fault(dane(Tlsa(2, 0, 0, der(authority.cert_pem))), sent) != ""
    assert fault(dane(Tlsa(2, 0, 0, der(authority.cert_pem)), names=("other.example.org",)), sent[1:]) == ""


def test_any_of_the_names_will_do_with_a_wildcard_too() -> None:
    authority = trustme.CA()
    record = Tlsa(2, 0, 0, der(authority.cert_pem))
    sent = chain_of(authority, "*.example.org")
    assert fault(dane(record, names=("x.example.net", "mx.example.org")), sent) == ""
    assert "not for a.mx.example.org" in fault(dane(record, names=("a.mx.example.org",)), sent)


@given(st.lists(st.binary(max_size=200), max_size=3), st.binary(max_size=40))
def test_whatever_a_peer_sends_the_answer_is_a_sentence(chain: list[bytes], data: bytes) -> None:
    records = (Tlsa(2, 0, 0, data), Tlsa(3, 1, 0, data))
    assert fault(dane(*records), chain) != ""


def made_by_hand(root: list[x509.ExtensionType], between: list[x509.ExtensionType]) -> list[bytes]:
    """A chain of three, the server's own first, whose authorities say of themselves what is given."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (NAME, "between", "root")]
    signers = [keys[1], keys[2], keys[2]]
    issuers = [names[1], names[2], names[2]]
    said: list[list[x509.ExtensionType]] = [[x509.SubjectAlternativeName([x509.DNSName(NAME)])], between, root]
    now = datetime.datetime.now(datetime.UTC)
    chain = []
    for name, issuer, key, signer, extensions in zip(names, issuers, keys, signers, said, strict=True):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        chain.append(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER))
    return chain


@pytest.mark.parametrize(
    ("root", "between"),
    [
        pytest.param([A_CA, SIGNS], [A_CA, SIGNS], id="as authorities of the web are"),
        pytest.param([A_CA], [A_CA, SIGNS], id="a root without key usage, as openssl req makes it"),
        pytest.param([A_CA, SIGNS], [A_CA, SIGNS, FOR_SERVERS], id="an intermediate for servers alone"),
        pytest.param([A_CA, SIGNS, FOR_SERVERS], [A_CA], id="a root for servers alone"),
    ],
)
def test_an_anchor_need_not_be_as_the_webs_are(
    root: list[x509.ExtensionType], between: list[x509.ExtensionType]
) -> None:
    """RFC 7671 5.2: the domain says whom it trusts; a private authority is as good as a public one."""
    chain = made_by_hand(root, between)
    assert fault(dane(Tlsa(2, 0, 0, chain[2])), chain[:2]) == ""
    assert fault(dane(Tlsa(2, 0, 0, chain[1])), chain[:1]) == ""


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([], id="says nothing"),
        pytest.param([x509.BasicConstraints(ca=False, path_length=None)], id="is none"),
        pytest.param([A_CA, SIGNS_NO_CERTIFICATES], id="may sign no certificates"),
        pytest.param([A_CA, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])], id="for other uses"),
        pytest.param(
            [A_CA, x509.NameConstraints([x509.DNSName("elsewhere.example")], None)], id="for other names alone"
        ),
    ],
)
def test_an_authority_that_may_not_have_signed_it_leads_nowhere(between: list[x509.ExtensionType]) -> None:
    chain = made_by_hand([A_CA, SIGNS], between)
    assert "does not lead to a trusted one" in fault(dane(Tlsa(2, 0, 0, chain[2])), chain[:2])


def test_an_authority_may_allow_none_below_it() -> None:
    chain = made_by_hand([x509.BasicConstraints(ca=True, path_length=0)], [A_CA, SIGNS])
    assert "does not lead to a trusted one" in fault(dane(Tlsa(2, 0, 0, chain[2])), chain[:2])


def _key(leaf: trustme.LeafCert) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
