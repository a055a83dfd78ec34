"""Build a certificate in two halves: what will be signed, and the certificate once it is.

The to-be-signed bytes exist before any key is touched, so that they can be linted and recorded
first. Afterwards the certificate is put together from exactly those bytes and compared with them
again: what was recorded is what was signed.

The outer structure is encoded here, field by field in the order of RFC 5280 section 4.1, because
most of it is the same for all certificates of a CA; names, keys and the values of extensions are
encoded by the library. `tests/certs/test_build.py` holds the result against the library's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from muster.certs.encoding import (
    der_bit_string,
    der_explicit,
    der_octet_string,
    der_positive_integer,
    der_sequence,
    der_time,
)
from muster.certs.names import AlternativeName, NameKind
from muster.certs.profile import CertificateProfile
from muster.certs.usages import KeyUse, key_usage_extension

AuthorityKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
AuthorityHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

# AlgorithmIdentifiers, whole (RFC 4055 section 5, RFC 5758 section 3.2).
_RSA_ALGORITHM = {
    "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
    "sha384": bytes.fromhex("300d06092a864886f70d01010c0500"),
    "sha512": bytes.fromhex("300d06092a864886f70d01010d0500"),
}
_ECDSA_ALGORITHM = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
    "sha512": bytes.fromhex("300a06082a8648ce3d040304"),
}

# OBJECT IDENTIFIERs, whole: of `id-ce` (RFC 5280 section 4.2.1) and `id-pe` (section 4.2.2).
_IDENTIFIER = {
    x509.SubjectKeyIdentifier.oid: bytes.fromhex("0603551d0e"),
    x509.KeyUsage.oid: bytes.fromhex("0603551d0f"),
    x509.SubjectAlternativeName.oid: bytes.fromhex("0603551d11"),
    x509.BasicConstraints.oid: bytes.fromhex("0603551d13"),
    x509.CRLDistributionPoints.oid: bytes.fromhex("0603551d1f"),
    x509.AuthorityKeyIdentifier.oid: bytes.fromhex("0603551d23"),
    x509.ExtendedKeyUsage.oid: bytes.fromhex("0603551d25"),
    x509.AuthorityInformationAccess.oid: bytes.fromhex("06082b06010505070101"),
}
_TRUE = bytes.fromhex("0101ff")
_VERSION_3 = bytes.fromhex("a003020102")
_NOBODYS_SIGNATURE = der_bit_string(bytes(8))
# Encoded extensions kept at hand, some 200 bytes each: one entry for each CA that issues, and one
# for each set of usages that is asked for.
_KEPT = 512


@dataclass(frozen=True, slots=True)
class Issuer:
    """The CA that will sign: its name, its key, how it hashes, and where it publishes.

    `key_identifier` is its subject key identifier: see `key_identifier`.
    The two locations are plain `http` URLs, or None for a root's own certificate, which nobody
    fetches and nobody revokes.
    """

    name: x509.Name
    public_key: AuthorityKey
    key_identifier: bytes
    hashing: AuthorityHash
    certificate_url: str | None = None
    crl_url: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedCertificate:
    """What will be signed.

    `draft` is the whole certificate with a signature that is no one's: to be linted, never to be
    given away.
    """

    to_be_signed: bytes
    draft: x509.Certificate


def key_identifier(public_key: AuthorityKey) -> bytes:
    """Return the identifier of a CA's key: its SHA-1 (RFC 5280 section 4.2.1.2, method 1)."""
    return x509.SubjectKeyIdentifier.from_public_key(public_key).digest


def prepare_certificate(
    profile: CertificateProfile, issuer: Issuer, serial: int
) -> PreparedCertificate:
    """Return the to-be-signed part of the certificate that *profile* describes.

    The same arguments always give the same bytes.
    """
    to_be_signed = der_sequence(
        _VERSION_3,
        der_positive_integer(serial),
        signature_algorithm(issuer),
        issuer.name.public_bytes(),
        der_sequence(der_time(profile.not_before), der_time(profile.not_after)),
        profile.subject.public_bytes(),
        profile.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        der_explicit(3, der_sequence(*_extensions(profile, issuer))),
    )
    draft = der_sequence(to_be_signed, signature_algorithm(issuer), _NOBODYS_SIGNATURE)
    return PreparedCertificate(to_be_signed, x509.load_der_x509_certificate(draft))


def assemble_certificate(
    to_be_signed: bytes,
    signature: bytes,
    issuer: Issuer,
    issuer_certificate: x509.Certificate | None,
) -> x509.Certificate:
    """Return the certificate made of exactly *to_be_signed* and *signature*, checked.

    Checks that the issuer's key made the signature and that the certificate, read back, holds the
    same bytes that were recorded. Without *issuer_certificate* the certificate must be its own
    issuer. What fails here was done by this program or its keystore, never by a peer, so it
    raises `ValueError`.
    """
    der = der_sequence(to_be_signed, signature_algorithm(issuer), der_bit_string(signature))
    certificate = x509.load_der_x509_certificate(der)
    if certificate.tbs_certificate_bytes != to_be_signed:
        raise ValueError("the certificate differs from what was recorded")
    try:
        certificate.verify_directly_issued_by(issuer_certificate or certificate)
    except Exception as error:
        raise ValueError("the keystore's signature is not by the CA's key") from error
    return certificate


def signature_algorithm(issuer: Issuer) -> bytes:
    """Return the AlgorithmIdentifier of the issuer's signatures, DER."""
    table = _RSA_ALGORITHM if isinstance(issuer.public_key, rsa.RSAPublicKey) else _ECDSA_ALGORITHM
    return table[issuer.hashing.name]


def _extensions(profile: CertificateProfile, issuer: Issuer) -> Iterator[bytes]:
    role, usages = _role_extensions(
        profile.is_ca, profile.path_length, profile.key_uses, profile.ekus
    )
    identifier, locations = _issuer_extensions(
        issuer.key_identifier, issuer.certificate_url, issuer.crl_url
    )
    yield role
    yield _extension(x509.SubjectKeyIdentifier.from_public_key(profile.public_key))
    yield identifier
    yield usages
    if profile.names:
        yield _extension(x509.SubjectAlternativeName([_general_name(one) for one in profile.names]))
    yield locations


@lru_cache(maxsize=_KEPT)
def _role_extensions(
    is_ca: bool,
    path_length: int | None,
    key_uses: frozenset[KeyUse],
    ekus: tuple[str, ...],
) -> tuple[bytes, bytes]:
    role = _extension(x509.BasicConstraints(is_ca, path_length), critical=True)
    role += _extension(key_usage_extension(key_uses), critical=True)
    if not ekus:
        return role, b""
    usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier(dotted) for dotted in ekus])
    return role, _extension(usages)


@lru_cache(maxsize=_KEPT)
def _issuer_extensions(
    identifier: bytes, certificate_url: str | None, crl_url: str | None
) -> tuple[bytes, bytes]:
    locations = b""
    if certificate_url is not None:
        locations += _extension(_issuer_location(certificate_url))
    if crl_url is not None:
        locations += _extension(_crl_location(crl_url))
    return _extension(x509.AuthorityKeyIdentifier(identifier, None, None)), locations


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    criticality = _TRUE if critical else b""
    return der_sequence(_IDENTIFIER[value.oid], criticality, der_octet_string(value.public_bytes()))


def _general_name(name: AlternativeName) -> x509.GeneralName:
    if name.kind is NameKind.IP:
        return x509.IPAddress(ipaddress.ip_address(name.value))
    if name.kind is NameKind.DNS:
        return x509.DNSName(name.value)
    raise ValueError(f"{name.kind.name} names are not issued")


def _issuer_location(url: str) -> x509.AuthorityInformationAccess:
    # RFC 5280 section 4.2.2.1. Devices on .NET present the chain only if they can fetch it here.
    location = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)]
    )


def _crl_location(url: str) -> x509.CRLDistributionPoints:
    location = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([location], None, None, None)])
