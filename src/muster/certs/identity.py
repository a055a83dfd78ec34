"""Which device a certificate speaks for, and by which digest it is known."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from cryptography import x509

from muster.certs.chain import common_name, outside_validity, shown
from muster.errors import Kind, Problem
from muster.ids import DeviceId, RegistrationId, Thumbprint


def sha1_thumbprint(der: bytes) -> Thumbprint:
    """Return the SHA-1 thumbprint of a DER certificate.

    A key to look certificates up by, for the wires that know no other (`x5t`). SHA-1 collides:
    never the only ground to trust on, with the one exception that `matches_thumbprint` makes.
    """
    return Thumbprint(hashlib.sha1(der, usedforsecurity=False).hexdigest().upper())


def sha256_thumbprint(der: bytes) -> Thumbprint:
    """Return the SHA-256 thumbprint of a DER certificate: the name we know certificates by."""
    return Thumbprint(hashlib.sha256(der).hexdigest().upper())


def matches_thumbprint(der: bytes, expected: Thumbprint) -> bool:
    """Whether *expected*, of either length, is the whole digest of *der*. Constant time.

    Of forty digits it is SHA-1, and then whoever made two certificates with one digest may
    present either. Registries of devices hold such thumbprints and no certificate to compare
    with: docs/decisions/0014-sha1-thumbprints.md says why that is borne. Does not check dates or
    possession of the key.
    """
    actual = sha1_thumbprint(der) if len(expected) == 40 else sha256_thumbprint(der)
    return hmac.compare_digest(actual.encode(), expected.encode())


def verify_device_identity(
    leaf: x509.Certificate, device_id: DeviceId | RegistrationId, *, now: datetime
) -> None:
    """Check that *leaf* speaks for *device_id* at the moment *now*.

    The subject has one common name and it equals *device_id* exactly: case matters,
    wildcards mean nothing, and subject alternative names are not consulted.

    Does not check who signed *leaf* (see `chain.verify_client_chain`) nor whether it was
    revoked. Call all three, in that order: the chain says the name is genuine, this says it is
    the right name, revocation says it still counts.

    Raises:
        Problem(UNAUTHENTICATED): *now* is outside the certificate's validity, whose last second
            is included, or the subject has no single common name.
        Problem(FORBIDDEN): the name is another one.
    """
    check_validity(leaf, now)
    name = common_name(leaf)
    if name != device_id:
        raise Problem(Kind.FORBIDDEN, f"the certificate is for {shown(name)}, not for {device_id}")


def check_validity(leaf: x509.Certificate, now: datetime) -> None:
    """Check that *now* is inside the validity of *leaf*, both ends included.

    For the checks after the first one: a session outlives the moment its chain was verified.
    Raises `Problem(UNAUTHENTICATED)`.
    """
    if (why := outside_validity(leaf, now)) is not None:
        raise Problem(Kind.UNAUTHENTICATED, why)
