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
from muster.certs.names import AlternativeName, names_of
from muster.certs.usages import KeyUse, uses_of
from muster.errors import Kind, Problem

LeafKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

# Below: NIST SP 800-57. Above: verifying costs the square of the length, at every handshake.
_RSA_BITS = range(2048, 4096 + 1)
# An even or tiny exponent makes textbook attacks possible; BR 6.1.6 asks for this range, and
# a longer one makes every verification slow.
_RSA_EXPONENTS = range(65537, 2**64)


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
    section 3). Checks that the key is one we certify: RSA of 2048 to 4096 bits, P-256, P-384,
    P-521 or Ed25519. Does not check whether anything it asks for may be had.

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
    match key:
        case rsa.RSAPublicKey():
            if key.key_size not in _RSA_BITS:
                raise Problem(
                    Kind.UNSUPPORTED,
                    f"the CSR's RSA key has {key.key_size} bits; 2048 to 4096 are certified",
                )
            exponent = key.public_numbers().e
            if exponent not in _RSA_EXPONENTS or exponent % 2 == 0:
                raise Problem(Kind.UNSUPPORTED, "the CSR's RSA key has an unsafe exponent")
            return key
        case ec.EllipticCurvePublicKey():
            if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
                raise Problem(
                    Kind.UNSUPPORTED, "the CSR's key is on a curve other than P-256, P-384, P-521"
                )
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            raise Problem(Kind.UNSUPPORTED, "the CSR's key is neither RSA, ECDSA nor Ed25519")


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
