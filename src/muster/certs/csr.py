"""Read certificate signing requests: what is asked for, and proof that the key is held.

What a request asks for is only read here. Nothing of it but the key reaches a certificate
without `profile` having allowed it, and no extension is ever copied.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from muster.certs.chain import UNREADABLE
from muster.certs.encoding import request_der
from muster.certs.keys import flaw_of
from muster.certs.names import AlternativeName, names_of
from muster.certs.usages import KeyUse, uses_of
from muster.errors import Kind, Problem

# What profiles, linting and the TLS stacks of devices are ready for: ML-DSA is not among it yet.
LeafKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request whose signature was verified.

    `ekus` and `key_uses` are None when the request says nothing about them.
    """

    der: bytes
    subject: x509.Name
    public_key: LeafKey
    names: tuple[AlternativeName, ...]
    ekus: frozenset[str] | None
    key_uses: frozenset[KeyUse] | None
    asks_to_be_ca: bool


def parse_signing_request(text: str) -> SigningRequest:
    """Return what the PKCS #10 request *text* (PEM or base64) asks for.

    Promises proof of possession: the request is signed with the key it names (RFC 2986
    section 3). Checks first that the key is one we certify: a `LeafKey` in which `keys.flaw_of`
    finds no flaw. Does not check whether anything it asks for may be had.

    Raises `Problem(TOO_LARGE)`, `Problem(MALFORMED)`, or `Problem(UNSUPPORTED)` for kinds of key
    and name that are not issued.
    """
    der = request_der(text)
    try:
        request = x509.load_der_x509_csr(der)
        subject, extensions, key = request.subject, request.extensions, request.public_key()
    except UnsupportedAlgorithm as error:
        raise Problem(Kind.UNSUPPORTED, "the CSR's key is of an unsupported kind") from error
    except UNREADABLE as error:
        raise Problem(Kind.MALFORMED, "the CSR is not a PKCS #10 request") from error
    allowed = _check_key(key)
    _check_possession(request)
    return SigningRequest(
        der=der,
        subject=subject,
        public_key=allowed,
        names=_names(extensions),
        ekus=_ekus(extensions),
        key_uses=_key_uses(extensions),
        asks_to_be_ca=_asks_to_be_ca(extensions),
    )


def _check_key(key: object) -> LeafKey:
    if (flaw := flaw_of(key)) is not None:
        raise Problem(Kind.UNSUPPORTED, f"the CSR's key {flaw}")
    if not isinstance(key, LeafKey):
        raise Problem(Kind.UNSUPPORTED, "the CSR's key is neither RSA, ECDSA nor Ed25519")
    return key


def _check_possession(request: x509.CertificateSigningRequest) -> None:
    try:
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Problem(
            Kind.UNSUPPORTED, "the CSR is signed with an unsupported algorithm"
        ) from error
    if not valid:
        raise Problem(
            Kind.MALFORMED, "the CSR's signature is not by its key: possession is not proven"
        )


def _names(extensions: x509.Extensions) -> tuple[AlternativeName, ...]:
    try:
        return names_of(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _ekus(extensions: x509.Extensions) -> frozenset[str] | None:
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return frozenset(usage.dotted_string for usage in usages)


def _key_uses(extensions: x509.Extensions) -> frozenset[KeyUse] | None:
    try:
        return uses_of(extensions.get_extension_for_class(x509.KeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def _asks_to_be_ca(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
