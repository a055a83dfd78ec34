"""Key usages and extended key usages: their names on the wire and their bits in X.509."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from cryptography import x509

from muster.certs.chain import shown
from muster.errors import Kind, Problem

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"


class KeyUse(Enum):
    """One bit of the key usage extension (RFC 5280 section 4.2.1.3), named as clients name it."""

    DIGITAL_SIGNATURE = "Digital Signature"
    NON_REPUDIATION = "Non Repudiation"
    KEY_ENCIPHERMENT = "Key Encipherment"
    DATA_ENCIPHERMENT = "Data Encipherment"
    KEY_AGREEMENT = "Key Agreement"
    CERTIFICATE_SIGN = "Certificate Sign"
    CRL_SIGN = "CRL Sign"


_BY_NAME = {use.value.lower(): use for use in KeyUse}


def parse_key_uses(names: Iterable[str]) -> frozenset[KeyUse]:
    """Return the bits that *names* mean, without regard to case; raises `Problem(MALFORMED)`."""
    found = set()
    for name in names:
        use = _BY_NAME.get(name.lower())
        if use is None:
            raise Problem(
                Kind.MALFORMED,
                f"{shown(name)!r} is not a key usage; there are: "
                + ", ".join(known.value for known in KeyUse),
            )
        found.add(use)
    return frozenset(found)


def uses_of(extension: x509.KeyUsage) -> frozenset[KeyUse]:
    """Return the bits that are set in *extension*. The two that only narrow others are left out."""
    bits = {
        KeyUse.DIGITAL_SIGNATURE: extension.digital_signature,
        KeyUse.NON_REPUDIATION: extension.content_commitment,
        KeyUse.KEY_ENCIPHERMENT: extension.key_encipherment,
        KeyUse.DATA_ENCIPHERMENT: extension.data_encipherment,
        KeyUse.KEY_AGREEMENT: extension.key_agreement,
        KeyUse.CERTIFICATE_SIGN: extension.key_cert_sign,
        KeyUse.CRL_SIGN: extension.crl_sign,
    }
    return frozenset(use for use, is_set in bits.items() if is_set)


def key_usage_extension(uses: Collection[KeyUse]) -> x509.KeyUsage:
    """Return the extension in which exactly the bits *uses* are set."""
    return x509.KeyUsage(
        digital_signature=KeyUse.DIGITAL_SIGNATURE in uses,
        content_commitment=KeyUse.NON_REPUDIATION in uses,
        key_encipherment=KeyUse.KEY_ENCIPHERMENT in uses,
        data_encipherment=KeyUse.DATA_ENCIPHERMENT in uses,
        key_agreement=KeyUse.KEY_AGREEMENT in uses,
        key_cert_sign=KeyUse.CERTIFICATE_SIGN in uses,
        crl_sign=KeyUse.CRL_SIGN in uses,
        encipher_only=False,
        decipher_only=False,
    )
