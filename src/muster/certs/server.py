"""The server's own TLS certificates: a small root that clients install, and a leaf under it.

Apart from the product's CAs on purpose: what devices trust to find their server, and what the
server trusts to know its devices, are two questions, and neither key should answer both.

P-256 throughout: an ECDSA leaf saves 200-400 us a handshake over RSA-2048.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A client that installed the root should not have to do so again while its laptop lives.
ROOT_LIFETIME = timedelta(days=3650)
# The longest that Apple's platforms accept from any root, and nobody else asks for less.
LEAF_LIFETIME = timedelta(days=397)
# A leaf is replaced this long before its end, so that a server started once a month is in time.
LEAF_RENEWAL = timedelta(days=60)
# Clocks of machines that start without a network are often some minutes behind.
_BACKDATE = timedelta(hours=1)


def build_tls_root(
    key: ec.EllipticCurvePrivateKey, *, common_name: str, now: datetime
) -> x509.Certificate:
    """Return a self-signed root that may sign server certificates and nothing below them."""
    name = _name(common_name)
    usage = _key_usage(digital_signature=False, certificates=True)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def build_server_certificate(
    key: ec.EllipticCurvePublicKey,
    names: Iterable[str],
    *,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return a server certificate for *names*: IP literals as iPAddress, the rest as dNSName.

    Clients refuse an address that is written as a DNS name, and no longer look at the common
    name, which is the first of *names* cut to the 64 characters that X.520 allows.
    """
    entries = [_general_name(name) for name in dict.fromkeys(names)]
    first = str(entries[0].value)
    identifier = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(_name(first[:64]))
        .issuer_name(root.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + LEAF_LIFETIME, root.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(entries), critical=False)
        .add_extension(_key_usage(digital_signature=True, certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )


def server_names(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names and addresses that *certificate* speaks for."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(entry.value) for entry in value)


def needs_renewal(certificate: x509.Certificate, names: Iterable[str], *, now: datetime) -> bool:
    """Return whether *certificate* lacks one of *names* or will soon end."""
    return (
        not frozenset(str(_general_name(name).value) for name in names) <= server_names(certificate)
        or certificate.not_valid_after_utc - now < LEAF_RENEWAL
    )


def _general_name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, digital_signature: bool, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
