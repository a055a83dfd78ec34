"""A private PKI for tests: roots, intermediates and leaves, well made or wrong on purpose."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Credential:
    """A leaf with its key, and the certificates that a device may send along."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]

    def chain_pem(self, length: int = 1) -> str:
        """Return the first *length* certificates, leaf first, as PEM."""
        chain = (self.certificate, *self.issuers)[:length]
        return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in chain)

    @property
    def key_pem(self) -> str:
        """The private key as unencrypted PKCS#8 PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def write(self, directory: Path, length: int = 1) -> tuple[Path, Path]:
        """Write chain and key; return both paths."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = f"{self.certificate.serial_number:x}-{length}"
        chain, key = directory / f"{stem}.pem", directory / f"{stem}.key"
        chain.write_text(self.chain_pem(length))
        key.write_text(self.key_pem)
        return chain, key


class TestAuthority:
    """A CA for tests; `below` makes an intermediate, `leaf` a device."""

    __test__ = False  # the name begins with Test, and it is not one

    def __init__(self, common_name: str, issuer: TestAuthority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer
        signer = issuer or self
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(common_name) if issuer is None else issuer.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now + timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()),
                critical=False,
            )
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def der_base64(self) -> str:
        """The certificate as control planes take it."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def path(self) -> tuple[x509.Certificate, ...]:
        """This CA's certificate and those above it, the root last."""
        return (self.certificate, *(self.issuer.path if self.issuer else ()))

    def below(self, common_name: str) -> TestAuthority:
        """Return an intermediate CA under this one."""
        return TestAuthority(common_name, self)

    def leaf(
        self, common_name: str, *, begins: timedelta = -timedelta(hours=1),
        ends: timedelta = timedelta(days=10),
    ) -> Credential:  # fmt: skip
        """Return a device certificate whose validity is given from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return Credential(key, certificate, self.path)
