"""Build a certificate in two halves: what will be signed, and the certificate once it is.

The to-be-signed bytes exist before any key is touched, so that they can be linted and recorded
first. Afterwards the certificate is put together from exactly those bytes and compared with them
again: what was recorded is what was signed.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

from muster.certs.encoding import der_bit_string, der_sequence
from muster.certs.names import AlternativeName, NameKind
from muster.certs.placeholder import placeholder_key
from muster.certs.profile import CertificateProfile
from muster.certs.usages import key_usage_extension

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
    builder = (
        x509.CertificateBuilder()
        .subject_name(profile.subject)
        .issuer_name(issuer.name)
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
        usages = [x509.ObjectIdentifier(dotted) for dotted in profile.ekus]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if profile.names:
        names = [_general_name(name) for name in profile.names]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if issuer.certificate_url is not None:
        builder = builder.add_extension(_issuer_location(issuer.certificate_url), critical=False)
    if issuer.crl_url is not None:
        builder = builder.add_extension(_crl_location(issuer.crl_url), critical=False)
    draft = builder.sign(placeholder_key(issuer.public_key), issuer.hashing)
    return PreparedCertificate(draft.tbs_certificate_bytes, draft)


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
