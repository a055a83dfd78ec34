"""Certificates and CRLs in two halves: what is signed is what was prepared."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.certs.build import Issuer, assemble_certificate, key_identifier, prepare_certificate
from muster.certs.crl import RevokedEntry, assemble_crl, next_crl_number, prepare_crl
from muster.certs.encoding import certificate_pem, der_bit_string, der_sequence, der_time
from muster.certs.names import NameKind, alternative_name
from muster.certs.placeholder import placeholder_key
from muster.certs.profile import CertificateProfile, authority_profile
from muster.certs.usages import CLIENT_AUTH, SERVER_AUTH, KeyUse, key_usage_extension

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


def built_by_the_library(profile: CertificateProfile, issuer: Issuer, serial: int) -> bytes:
    """Return the to-be-signed bytes as the library's own builder makes them."""
    builder = (
        x509.CertificateBuilder(issuer.name, profile.subject)
        .public_key(profile.public_key)
        .serial_number(serial)
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
        .add_extension(x509.BasicConstraints(profile.is_ca, profile.path_length), critical=True)
        .add_extension(key_usage_extension(profile.key_uses), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(profile.public_key), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None), critical=False
        )
    )
    if profile.ekus:
        usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier(one) for one in profile.ekus])
        builder = builder.add_extension(usages, critical=False)
    if profile.names:
        names = x509.SubjectAlternativeName(
            [
                x509.IPAddress(ipaddress.ip_address(one.value))
                if one.kind is NameKind.IP
                else x509.DNSName(one.value)
                for one in profile.names
            ]
        )
        builder = builder.add_extension(names, critical=False)
    if issuer.certificate_url is not None:
        location = x509.UniformResourceIdentifier(issuer.certificate_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    if issuer.crl_url is not None:
        location = x509.UniformResourceIdentifier(issuer.crl_url)
        point = x509.DistributionPoint([location], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.sign(placeholder_key(issuer.public_key), issuer.hashing).tbs_certificate_bytes


# The library counts the 64 of a common name in bytes.
texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=16)
moments = st.integers(-630_720_000, 253_402_127_999).map(  # 1950-01-06 to 9999-12-29
    lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
alternatives = st.lists(
    st.sampled_from(["device-1", "a.example", "192.0.2.1", "2001:db8::1", "x" * 64]).map(
        alternative_name
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=200)
@given(
    subject=texts,
    title=texts,
    key=st.sampled_from([*KEYS.values(), ed25519.Ed25519PrivateKey.generate()]),
    signer=st.sampled_from(list(KEYS.values())),
    algorithm=st.sampled_from(HASHES),
    dates=st.tuples(moments, moments).map(sorted),
    uses=st.frozensets(st.sampled_from(list(KeyUse)), min_size=1),
    ekus=st.sampled_from([(), (CLIENT_AUTH,), (CLIENT_AUTH, SERVER_AUTH)]),
    names=alternatives,
    role=st.sampled_from([(False, None), (True, None), (True, 0), (True, 3)]),
    urls=st.sampled_from(
        [(None, None), ("http://ca.example/a.cer", "http://ca.example/" + "a" * 300)]
    ),
    serial=st.integers(1, 2**159 - 1) | st.sampled_from([1, 127, 128, 255, 256, 2**159 - 1]),
)
def test_the_layout_is_the_librarys(
    *, subject, title, key, signer, algorithm, dates, uses, ekus, names, role, urls, serial
) -> None:
    """Byte for byte what the library's builder lays out, whatever the profile."""
    profile = CertificateProfile(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]),
        public_key=key.public_key(),
        not_before=dates[0],
        not_after=dates[1],
        key_uses=uses,
        ekus=ekus,
        names=tuple(names),
        is_ca=role[0],
        path_length=role[1],
    )
    public = signer.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    issuer = Issuer(name, public, key_identifier(public), algorithm, *urls)
    prepared = prepare_certificate(profile, issuer, serial)
    assert prepared.to_be_signed == built_by_the_library(profile, issuer, serial)
    assert prepared.draft.tbs_certificate_bytes == prepared.to_be_signed


def test_dates_follow_the_clock_not_the_zone() -> None:
    """A certificate's dates are UTC's, in two digits until 2049 and in four from 2050."""
    east = timezone(timedelta(hours=5))
    assert der_time(datetime(2050, 1, 1, 4, 59, 59, 999_999, east)) == b"\x17\x0d491231235959Z"
    assert der_time(datetime(2050, 1, 1, 5, 0, 0, 0, east)) == b"\x18\x0f20500101000000Z"


@pytest.mark.parametrize("moment", [NOW.replace(tzinfo=None), datetime(1949, 12, 31, tzinfo=UTC)])
def test_dates_that_cannot_be_written_are_bugs(moment) -> None:
    """Neither a moment without a zone nor one before the first year."""
    with pytest.raises(ValueError, match=r"naive|1950"):
        der_time(moment)


@pytest.mark.parametrize("serial", [0, -1])
def test_serials_are_positive(serial) -> None:
    """RFC 5280 section 4.1.2.2."""
    with pytest.raises(ValueError, match="positive"):
        prepare_certificate(root_profile(KEYS["P-256"]), issuer_for(KEYS["P-256"]), serial)


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
