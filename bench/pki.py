"""Keys and certificates for the load: one CA, one device key, as many leaves as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Pki:
    """Files under *directory*: ca.pem, server.pem, server-key.pem, device-key.pem, NAME.pem."""

    directory: Path
    ca: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    device_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def file(self, name: str) -> Path:
        return self.directory / name

    def device(self, name: str) -> Path:
        """Return a PEM file with the leaf of *name*; its key is device-key.pem."""
        path = self.file(f"{name}.pem")
        if not path.exists():
            leaf = self.leaf(name, self.device_key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH)
            path.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        return path

    def leaf(self, name, public_key, usage, san=None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.ca.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()),
                critical=False,
            )
        )
        if san is not None:
            builder = builder.add_extension(san, critical=False)
        return builder.sign(self.ca_key, hashes.SHA256())


def make_pki(directory: Path, *, device_key: str = "p256") -> Pki:
    directory.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    ca = (
        x509.CertificateBuilder()
        .subject_name(_name("bench CA"))
        .issuer_name(_name("bench CA"))
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if device_key == "p256"
        else rsa.generate_private_key(65537, 4096)
    )
    pki = Pki(directory, ca, ca_key, key)
    pki.file("ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    _write_key(pki.file("ca-key.pem"), ca_key)
    _write_key(pki.file("device-key.pem"), key)
    server_key = ec.generate_private_key(ec.SECP256R1())
    _write_key(pki.file("server-key.pem"), server_key)
    san = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    server = pki.leaf("localhost", server_key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, san)
    pki.file("server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    return pki


def _write_key(path: Path, key) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o644)  # mosquitto drops root and must still read it; these keys guard nothing
