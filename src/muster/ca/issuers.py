"""A stored CA made ready to sign: its parsed certificate, its key's name, where it publishes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from muster.certs.build import AuthorityHash, AuthorityKey, Issuer, key_identifier
from muster.certs.profile import CertificateProfile
from muster.model.authority import Authority, Hashing

_HASH: dict[Hashing, AuthorityHash] = {
    Hashing.SHA256: hashes.SHA256(),
    Hashing.SHA384: hashes.SHA384(),
    Hashing.SHA512: hashes.SHA512(),
}
# Parsed CA certificates kept at hand: a few for each tenant, 2 KiB each.
_PARSED = 512


@dataclass(frozen=True, slots=True)
class PublicLocations:
    """Where CA certificates and CRLs are fetched from: a plain `http` URL without a final slash.

    It goes into every certificate and cannot be changed there afterwards.
    """

    base_url: str

    def certificate_url(self, authority_id: str) -> str:
        """Return where that CA's certificate is, DER."""
        return f"{self.base_url}/ca/{authority_id}.cer"

    def crl_url(self, authority_id: str) -> str:
        """Return where that CA's CRL is, DER."""
        return f"{self.base_url}/crl/{authority_id}.crl"


@dataclass(frozen=True, slots=True)
class SigningAuthority:
    """A CA that is about to sign. `certificate` is None while it makes its own, a root's."""

    authority_id: str
    tenant_id: str
    key_id: str
    hashing: Hashing
    issuer: Issuer
    certificate: x509.Certificate | None


def signing_authority(authority: Authority, locations: PublicLocations) -> SigningAuthority:
    """Return *authority* ready to sign what others ask of it."""
    certificate, _, _ = _parsed(authority.certificate)
    issuer = _issuer(authority.certificate, authority.id, authority.hashing, locations)
    return SigningAuthority(
        authority.id, authority.tenant_id, authority.key_id, authority.hashing, issuer, certificate
    )


@lru_cache(maxsize=_PARSED)
def _issuer(der: bytes, authority_id: str, hashing: Hashing, locations: PublicLocations) -> Issuer:
    certificate, key, identifier = _parsed(der)
    return Issuer(
        name=certificate.subject,
        public_key=key,
        key_identifier=identifier,
        hashing=_HASH[hashing],
        certificate_url=locations.certificate_url(authority_id),
        crl_url=locations.crl_url(authority_id),
    )


def root_to_be(
    profile: CertificateProfile, *, authority_id: str, tenant_id: str, key_id: str, hashing: Hashing
) -> SigningAuthority:
    """Return a CA that has no certificate yet and will sign its own, as *profile* describes it.

    A root's certificate carries no locations: nobody fetches it, and it cannot be revoked.
    """
    key = _authority_key(profile.public_key)
    issuer = Issuer(profile.subject, key, key_identifier(key), _HASH[hashing])
    return SigningAuthority(authority_id, tenant_id, key_id, hashing, issuer, None)


def load_public_key(der: bytes) -> AuthorityKey:
    """Return a CA's public key from its DER SubjectPublicKeyInfo."""
    return _authority_key(serialization.load_der_public_key(der))


def parsed_certificate(der: bytes) -> x509.Certificate:
    """Return the certificate of a stored CA, parsed."""
    return _parsed(der)[0]


@lru_cache(maxsize=_PARSED)
def _parsed(der: bytes) -> tuple[x509.Certificate, AuthorityKey, bytes]:
    certificate = x509.load_der_x509_certificate(der)
    key = _authority_key(certificate.public_key())
    return certificate, key, key_identifier(key)


def _authority_key(key: object) -> AuthorityKey:
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise TypeError("a CA's key is RSA or ECDSA")
    return key
