"""Certificates and CRLs in two halves: what is signed is what was prepared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from muster.certs.build import Issuer, assemble_certificate, key_identifier, prepare_certificate
from muster.certs.crl import RevokedEntry, assemble_crl, next_crl_number, prepare_crl
from muster.certs.encoding import certificate_pem, der_bit_string, der_sequence
from muster.certs.placeholder import placeholder_key
from muster.certs.profile import authority_profile

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEYS = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
}
HASHES = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


def sign(key, data: bytes, algorithm) -> bytes:
    """Sign as a keystore does."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(algorithm))
    return key.sign(data, padding.PKCS1v15(), algorithm)


def issuer_for(key, algorithm=HASHES[0]) -> Issuer:
    """Return a root with *key*."""
    profile = root_profile(key)
    public = key.public_key()
    return Issuer(profile.subject, public, key_identifier(public), algorithm)


def root_profile(key):
    """Return what a root's certificate says."""
    return authority_profile(
        "root", key.public_key(), days=10, path_length=None, issuer=None, now=NOW
    )


@pytest.mark.parametrize("algorithm", HASHES, ids=lambda one: one.name)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_what_is_assembled_is_what_was_prepared(key, algorithm) -> None:
    """Same arguments, same bytes; the certificate around them verifies itself."""
    issuer, profile = issuer_for(key, algorithm), root_profile(key)
    prepared = prepare_certificate(profile, issuer, 7)
    assert prepare_certificate(profile, issuer, 7).to_be_signed == prepared.to_be_signed
    signature = sign(key, prepared.to_be_signed, algorithm)
    made = assemble_certificate(prepared.to_be_signed, signature, issuer, None)
    assert made.tbs_certificate_bytes == prepared.to_be_signed
    assert made.signature_hash_algorithm.name == algorithm.name
    made.verify_directly_issued_by(made)


def test_draft_has_nobodys_signature() -> None:
    """A draft that escapes is worth nothing."""
    key = KEYS["P-256"]
    draft = prepare_certificate(root_profile(key), issuer_for(key), 7).draft
    with pytest.raises(Exception):  # noqa: B017 - the library's choice which
        draft.verify_directly_issued_by(draft)


@pytest.mark.parametrize("fault", ["another key", "another text", "empty", "garbage"])
def test_wrong_signatures_are_bugs(fault) -> None:
    """Nothing leaves with a signature that is not by the CA over the recorded bytes."""
    key = KEYS["P-256"]
    issuer = issuer_for(key)
    text = prepare_certificate(root_profile(key), issuer, 7).to_be_signed
    other = ec.generate_private_key(ec.SECP256R1())
    signature = {
        "another key": sign(other, text, HASHES[0]),
        "another text": sign(key, text + b"x", HASHES[0]),
        "empty": b"",
        "garbage": bytes(70),
    }[fault]
    with pytest.raises(ValueError, match="signature"):
        assemble_certificate(text, signature, issuer, None)
    crl = prepare_crl([], issuer, number=1, this_update=NOW, next_update=NOW + timedelta(1))
    with pytest.raises(ValueError, match="signature"):
        assemble_crl(crl, signature, issuer)


def test_placeholder_gives_nothing_away() -> None:
    """It has no private half, in any form."""
    for key in KEYS.values():
        placeholder = placeholder_key(key.public_key())
        assert placeholder.public_key() == key.public_key()
        assert placeholder.key_size == key.key_size
        with pytest.raises(TypeError):
            placeholder.private_numbers()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_crl_holds_its_entries(key) -> None:
    """Number, times, entries with and without a reason."""
    issuer = issuer_for(key)
    entries = [RevokedEntry(5, NOW), RevokedEntry(2**158, NOW, x509.ReasonFlags.superseded)]
    text = prepare_crl(
        entries, issuer, number=42, this_update=NOW, next_update=NOW + timedelta(days=7)
    )
    crl = x509.load_der_x509_crl(assemble_crl(text, sign(key, text, HASHES[0]), issuer))
    assert crl.next_update_utc == NOW + timedelta(days=7)
    assert [one.serial_number for one in crl] == [5, 2**158]
    assert [len(one.extensions) for one in crl] == [0, 1]
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 42
    authority = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == issuer.key_identifier


@pytest.mark.parametrize("number", [-1, 2**159])
def test_crl_numbers_have_20_octets(number) -> None:
    """RFC 5280 section 5.2.3."""
    issuer = issuer_for(KEYS["P-256"])
    with pytest.raises(ValueError, match="20 octets"):
        prepare_crl([], issuer, number=number, this_update=NOW, next_update=NOW)


def test_crl_numbers_rise() -> None:
    """Over the last one and over the time, whichever is more."""
    seconds = int(NOW.timestamp())
    assert next_crl_number(None, NOW) == seconds
    assert next_crl_number(5, NOW) == seconds
    assert next_crl_number(seconds, NOW) == seconds + 1
    assert next_crl_number(seconds + 100, NOW) == seconds + 101


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 255, 256, 65_535, 65_536])
def test_der_lengths(size) -> None:
    """Short and long form at their boundaries (X.690 section 8.1.3)."""
    whole = der_sequence(b"\0" * size)
    header = len(whole) - size
    first = whole[1]
    if size < 128:
        assert (header, first) == (2, size)
    else:
        octets = first & 0x7F
        assert header == 2 + octets
        assert int.from_bytes(whole[2:header], "big") == size
        assert whole[2] != 0
    assert der_bit_string(b"ab") == b"\x03\x03\x00ab"


def test_pem_is_one_block_of_64_columns(root) -> None:
    """What openssl, Go and the C# clients read."""
    text = certificate_pem(root.der)
    assert text.encode() == root.certificate.public_bytes(Encoding.PEM)
