"""Build certificate revocation lists (RFC 5280 section 5), in two halves like certificates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from muster.certs.build import Issuer, signature_algorithm
from muster.certs.encoding import der_bit_string, der_sequence
from muster.certs.placeholder import placeholder_key

# RFC 5280 section 5.2.3: at most 20 octets, of which the first bit is the sign.
_MAX_NUMBER = 2**159 - 1


@dataclass(frozen=True, slots=True)
class RevokedEntry:
    """One certificate that no longer counts.

    `reason` is None when none was given: the extension is then left out (section 5.3.1).
    """

    serial: int
    revoked_at: datetime
    reason: x509.ReasonFlags | None = None


def next_crl_number(previous: int | None, now: datetime) -> int:
    """Return a number greater than *previous* and than any number given before *now*.

    The time is in it, so that numbers rise even when the database was restored from a backup
    that has forgotten the last ones.
    """
    number = int(now.timestamp())
    return number if previous is None else max(previous + 1, number)


def prepare_crl(
    entries: Iterable[RevokedEntry],
    issuer: Issuer,
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """Return the to-be-signed part of a complete CRL. *entries* come out in their order."""
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError("a CRL number has at most 20 octets")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.name)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(
            x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None), critical=False
        )
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(_revoked(entry))
    draft = builder.sign(placeholder_key(issuer.public_key), issuer.hashing)
    return draft.tbs_certlist_bytes


def assemble_crl(to_be_signed: bytes, signature: bytes, issuer: Issuer) -> bytes:
    """Return the CRL, DER, made of *to_be_signed* and *signature*.

    Raises `ValueError` when the issuer's key did not make the signature.
    """
    der = der_sequence(to_be_signed, signature_algorithm(issuer), der_bit_string(signature))
    crl = x509.load_der_x509_crl(der)
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = issuer.public_key
    if crl.tbs_certlist_bytes != to_be_signed or not crl.is_signature_valid(key):
        raise ValueError("the keystore's signature is not by the CA's key")
    return der


def _revoked(entry: RevokedEntry) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(entry.serial)
        .revocation_date(entry.revoked_at)
    )
    if entry.reason is not None:
        builder = builder.add_extension(x509.CRLReason(entry.reason), critical=False)
    return builder.build()
