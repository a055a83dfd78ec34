"""Certificates made by hand, so that each test can break one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)


def make(
    name: str | x509.Name,
    issuer: Made | None = None,
    *,
    ca: bool | None = None,
    path_length: int | None = None,
    key: Any = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + DAY,
    issuer_name: x509.Name | None = None,
) -> Made:
    """Return a certificate for *name*, self-signed without an *issuer*."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    subject = (
        name
        if isinstance(name, x509.Name)
        else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name or (issuer.certificate.subject if issuer else subject))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    signer = issuer.key if issuer else own
    hashed = isinstance(signer, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return Made(builder.sign(signer, hashes.SHA256() if hashed else None), own)


@pytest.fixture(name="now")
def now_fixture() -> datetime:
    """The moment the tests happen at."""
    return NOW


@pytest.fixture(name="make")
def make_fixture() -> Callable[..., Made]:
    """Make a certificate."""
    return make


@pytest.fixture(name="root", scope="session")
def root_fixture() -> Made:
    """A root CA, valid around now."""
    return make("root", ca=True)
