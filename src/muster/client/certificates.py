"""What a device does with keys and certificates: make a key, ask for a name, show its chain.

Pure, but for `build_chain`, which is an exchange. Making an RSA-4096 key takes up to a second of
processor time and releases the interpreter's lock: an event loop calls it in a thread.
"""

from __future__ import annotations

from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from muster.client.errors import ServiceError
from muster.client.exchange import Exchange, Request, ask

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# A chain of more issuers than this was made to waste time.
_MAX_ISSUERS = 4
# A certificate of 64 KiB has no business in a TLS handshake.
_MAX_CERTIFICATE = 65_536


class KeyKind(Enum):
    """The kinds of key a device may make, by their name on the command line."""

    RSA_4096 = "rsa4096"
    RSA_2048 = "rsa2048"
    P_256 = "p256"


def generate_key(kind: KeyKind) -> PrivateKey:
    """Return a new private key of *kind*."""
    if kind is KeyKind.P_256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(
        public_exponent=65537, key_size=4096 if kind is KeyKind.RSA_4096 else 2048
    )


def build_request(key: PrivateKey, name: str) -> str:
    """Return a PEM certificate signing request for `CN=`*name*, without extensions.

    EZCA's sample makes it so: the alternative names travel beside it.

    Raises `ValueError` when *name* is empty or longer than the 64 characters of a common name.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def key_pem(key: PrivateKey) -> bytes:
    """Return *key* as unencrypted PKCS #8 PEM. It is a secret: mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain_pem(chain: list[x509.Certificate]) -> bytes:
    """Return *chain* as one PEM file, leaf first."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def build_chain(leaf: x509.Certificate) -> Exchange[list[x509.Certificate]]:
    """Return *leaf* and the issuers it points to, without the self-signed root at the end.

    Follows "CA Issuers" addresses (RFC 5280 section 4.2.2.1), which are plain HTTP, as EZCA's
    sample does through its platform. An issuer that cannot be had, or did not sign what points to
    it, ends the chain: a service that knows the issuer needs no more.

    Does not check validity, constraints or revocation: the chain is shown, not trusted.
    """
    chain = [leaf]
    for _ in range(_MAX_ISSUERS):
        address = _issuer_address(chain[-1])
        if address is None:
            break
        issuer = yield from _fetch(address)
        if issuer is None or not _signed_by(chain[-1], issuer) or issuer.subject == issuer.issuer:
            break
        chain.append(issuer)
    return chain


def _issuer_address(certificate: x509.Certificate) -> str | None:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except (x509.ExtensionNotFound, ValueError):
        return None
    for description in access.value:
        if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS and isinstance(
            description.access_location, x509.UniformResourceIdentifier
        ):
            address = description.access_location.value
            if address.startswith("http://"):
                return address
    return None


def _fetch(address: str) -> Exchange[x509.Certificate | None]:
    request = Request(
        method="GET",
        url=address,
        purpose="fetch the issuer's certificate",
        repeatable=False,
        # A black-holed address must not hold a device up.
        timeout=5.0,
    )
    try:
        answer = yield from ask(request)
    except ServiceError:
        return None
    if len(answer.body) > _MAX_CERTIFICATE:
        return None
    try:
        if answer.body.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(answer.body)
        return x509.load_der_x509_certificate(answer.body)
    except ValueError:
        return None


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
